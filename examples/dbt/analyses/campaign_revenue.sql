-- Which campaigns earn the most for each email that was delivered?
select
    campaign_name,
    subject,
    sent_at::date as sent_on,
    sum(count_received_email) as delivered,
    round(100.0 * sum(unique_count_opened_email) / nullif(sum(unique_count_received_email), 0), 1) as opened_percent,
    round(100.0 * sum(unique_count_clicked_email) / nullif(sum(unique_count_received_email), 0), 1) as clicked_percent,
    sum(count_placed_order) as orders,
    sum(sum_revenue_placed_order) as revenue,
    round(sum(sum_revenue_placed_order) / nullif(sum(count_received_email), 0), 2) as revenue_per_email
from {{ ref('klaviyo__campaigns') }}
group by campaign_id, source_relation, campaign_name, subject, sent_at
having sum(count_received_email) > 0
order by revenue_per_email desc nulls last
