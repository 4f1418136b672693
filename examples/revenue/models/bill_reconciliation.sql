{% set whole = "('BIF','CLP','DJF','GNF','ISK','JPY','KMF','KRW','PYG','RWF','UGX','UYI','VND','VUV','XAF','XOF','XPF')" %}
-- A bill and the sum of its lines, which may differ by half a minor unit of the currency for each line.
with lines as (
    select
        "billId" as bill_id,
        count(*) as line_items,
        sum(cast(coalesce("convertedSubtotal", "subtotal") as decimal(38, 10))) as line_total
    from {{ source('m3ter', 'bill_line_item') }}
    where not "deleted"
    group by 1
),

bills as (
    select
        bill."id" as bill_id,
        bill."accountId" as account_id,
        bill."billDate" as bill_date,
        bill."status" as status,
        bill."currency" as currency,
        cast(bill."billTotal" as decimal(38, 10)) as bill_total,
        coalesce(lines.line_total, 0) as line_total,
        coalesce(lines.line_items, 0) as line_items
    from {{ source('m3ter', 'bill') }} as bill
    left join lines on lines.bill_id = bill."id"
    where not bill."deleted"
)

select
    *,
    bill_total - line_total as difference,
    abs(bill_total - line_total) <= greatest(0.01, line_items * if(currency in {{ whole }}, 0.5, 0.005)) as reconciles
from bills
