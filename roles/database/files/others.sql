-- Who else has rights on the table of results, and whether row-level security shows them a row: neither its owner, nor an administrator of
-- the server, nor one of %(named)s, which has commas between names.
SELECT role.rolname AS name,
       has_any_column_privilege(role.oid, results.oid, 'SELECT') AS reads,
       has_any_column_privilege(role.oid, results.oid, 'INSERT') OR has_any_column_privilege(role.oid, results.oid, 'UPDATE')
           OR has_table_privilege(role.oid, results.oid, 'DELETE') OR has_table_privilege(role.oid, results.oid, 'TRUNCATE') AS writes,
       NOT results.relrowsecurity OR role.rolbypassrls OR pg_has_role(role.oid, results.relowner, 'USAGE')
           OR EXISTS (SELECT FROM pg_policy AS policy, unnest(policy.polroles) AS member
                      WHERE policy.polrelid = results.oid AND (member = 0 OR pg_has_role(role.oid, member, 'USAGE'))) AS sees
FROM pg_roles AS role, pg_class AS results
WHERE results.oid = to_regclass('posture_results') AND NOT role.rolsuper AND role.oid <> results.relowner
  AND role.rolname !~ '^pg_' AND role.rolname <> ALL (string_to_array(%(named)s, ','))
  AND (has_any_column_privilege(role.oid, results.oid, 'SELECT') OR has_any_column_privilege(role.oid, results.oid, 'INSERT')
       OR has_any_column_privilege(role.oid, results.oid, 'UPDATE') OR has_table_privilege(role.oid, results.oid, 'DELETE')
       OR has_table_privilege(role.oid, results.oid, 'TRUNCATE'))
ORDER BY name
