-- What was billed per month, product and customer, in the currency of the bills; credits count against it.
select
    strftime(cast(bill."billDate" as date), '%Y-%m') as month,
    bill."accountId" as account_id,
    account."name" as customer,
    line."productId" as product_id,
    coalesce(product."name", 'no product') as product,
    bill."currency" as currency,
    round(sum(line.amount) filter (bill."status" = 'APPROVED'), 2) as approved,
    round(sum(line.amount) filter (bill."status" <> 'APPROVED'), 2) as pending,
    count(*) as line_items
from (
    select *, cast(coalesce("convertedSubtotal", "subtotal") as decimal(38, 10)) as amount
    from {{ source('m3ter', 'bill_line_item') }}
    where not "deleted"
) as line
join {{ source('m3ter', 'bill') }} as bill on bill."id" = line."billId" and not bill."deleted"
left join {{ source('m3ter', 'account') }} as account on account."id" = bill."accountId"
left join {{ source('m3ter', 'product') }} as product on product."id" = line."productId"
group by all
