-- Commitments that have not ended on the day of the export, and what is left of them.
select
    commitment."id" as commitment_id,
    commitment."accountId" as account_id,
    account."name" as customer,
    commitment."currency" as currency,
    cast(commitment."startDate" as date) as start_date,
    cast(commitment."endDate" as date) as end_date,
    cast(commitment."amount" as decimal(38, 10)) as amount,
    cast(coalesce(commitment."amountSpent", 0) as decimal(38, 10)) as spent,
    round(cast(commitment."amount" as decimal(38, 10)) - cast(coalesce(commitment."amountSpent", 0) as decimal(38, 10)), 2)
        as remaining
from {{ source('m3ter', 'commitment') }} as commitment
left join {{ source('m3ter', 'account') }} as account on account."id" = commitment."accountId"
where
    not commitment."deleted"
    and cast(commitment."endDate" as date) >= cast('{{ var("as_of") }}' as date)
    and commitment."amount" > coalesce(commitment."amountSpent", 0)
