{# fivetran_utils accepts only whole numbers without decimals here, so that every revenue would be 0. #}
{% macro postgres__try_cast(field, type) %}
    cast({{ field }} as {{ type }})
{% endmacro %}

{# klaviyo drops the sign, so that a negative value would add to revenue. #}
{% macro postgres__remove_string_from_numeric(column_name) %}
    cast(nullif(regexp_replace(cast({{ column_name }} as {{ dbt.type_string() }}), '[^0-9.-]+', '', 'g'), '') as {{ dbt.type_numeric() }})
{% endmacro %}
