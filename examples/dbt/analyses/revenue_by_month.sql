-- How much revenue do campaigns and flows bring, and how much comes without them?
select
    date_trunc('month', occurred_at)::date as month,
    count(*) as orders,
    sum(numeric_value) as revenue,
    sum(numeric_value) filter (where last_touch_type = 'campaign') as from_campaigns,
    sum(numeric_value) filter (where last_touch_type = 'flow') as from_flows,
    sum(numeric_value) filter (where last_touch_type is null) as organic
from {{ ref('klaviyo__events') }}
where type = 'Placed Order'
group by 1
order by 1
