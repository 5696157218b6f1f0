{{ config(materialized='incremental', unique_key=['event_at', 'key'], on_schema_change='append_new_columns') }}

select event.event_at, event.key, event.esp_integration_id, event.member_key, event.value, event.value_currency,
    event.__synced_at
from {{ source('klaviyo', 'events') }} as event
join {{ source('klaviyo', 'metrics') }} as metric on metric.key = event.metric_key
where metric.name = 'Placed Order'
{% if is_incremental() %}
    -- Rows become visible some time after __synced_at, and not in its order.
    and event.__synced_at > (select coalesce(max(__synced_at), '-infinity') from {{ this }}) - interval '1 hour'
    -- For speed: the index has event_at, not __synced_at. Daily runs find late events of LOOKBACK_DAYS and RECONCILE_DAYS
    -- (30): keep this longer, with days to spare. A backfill needs --full-refresh.
    and event.event_at > now() - interval '40 days'
{% endif %}
