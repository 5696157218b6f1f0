-- What does each flow, and each variation in it, earn?
select
    flow_name,
    status,
    variation_id,
    total_count_unique_people as people,
    count_received_email + count_received_sms as messages,
    unique_count_clicked_email as people_who_clicked,
    count_placed_order as orders,
    sum_revenue_placed_order as revenue,
    round(sum_revenue_placed_order / nullif(total_count_unique_people, 0), 2) as revenue_per_person
from {{ ref('klaviyo__flows') }}
where total_count_unique_people > 0
order by revenue desc nulls last
