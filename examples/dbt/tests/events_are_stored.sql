-- Incremental models keep events that the warehouse no longer has. If there are any, run: dbt build --full-refresh
select events.event_id
from {{ ref('klaviyo__events') }} as events
left join {{ ref('stg_klaviyo__event') }} as stored using (unique_event_id)
where stored.unique_event_id is null
