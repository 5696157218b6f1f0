-- The role with which Grafana reads the warehouse: only what the dashboard shows. It sees no people and no addresses,
-- but the domains of addresses, of which a private one can name a person.
-- Run this after the first run, which creates the tables. You can repeat it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana') THEN
        CREATE ROLE grafana LOGIN;
    END IF;
END $$;
-- Defaults, which a query can change. What keeps the role from writing is that it is granted nothing but SELECT.
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '60s';
GRANT USAGE ON SCHEMA klaviyo TO grafana;
GRANT SELECT ON
    klaviyo.integrations, klaviyo.runs, klaviyo.run_tables, klaviyo.freshness,
    klaviyo.campaign_performance, klaviyo.flow_performance, klaviyo.list_growth, klaviyo.deliverability
TO grafana;
GRANT SELECT (esp_integration_id, rejected_at) ON klaviyo.rejects TO grafana; -- not the records
