-- Which statements give each account the rights that it is to have on the tables, and no other, as text in the order in which they have to be
-- run. None where all is right, and none where the tables belong to an account whose rights the present one does not have.
--   %(writer)s    adds rows and reads them: the analyzers'
--   %(readers)s   read rows; names with commas between them
--   %(public)s    whether Supabase's accounts for whoever has the project's public key read rows, too
-- Accounts that are not named here keep what their owner gave them; row-level security decides whether they see a row.
WITH tables AS (
    SELECT oid, relname, relowner, relacl, relrowsecurity
    FROM pg_class
    WHERE oid IN (to_regclass('posture_results'), to_regclass('posture_schema_migrations')) AND pg_has_role(relowner, 'USAGE')
), results AS (
    SELECT * FROM tables WHERE relname = 'posture_results'
), sequences AS (
    -- Where a lab's own id is a serial one, who adds rows needs its numbers; an identity column gives them by itself.
    SELECT sequence.oid, results.relowner, sequence.relacl, depends.deptype = 'a' AS serial
    FROM results
    JOIN pg_depend AS depends ON depends.refobjid = results.oid AND depends.deptype IN ('a', 'i')
    JOIN pg_class AS sequence ON sequence.oid = depends.objid AND sequence.relkind = 'S'
), accounts AS (
    SELECT role.oid, quote_ident(role.rolname) AS name, role.rolname = %(writer)s AS adds,
           %(public)s OR role.rolname NOT IN ('anon', 'authenticated') AS reads
    FROM pg_roles AS role, results
    WHERE role.rolname = ANY (string_to_array(%(readers)s, ',') || ARRAY[%(writer)s, 'anon', 'authenticated'])
      AND NOT role.rolsuper AND role.oid <> results.relowner
    UNION ALL
    SELECT 0::oid, 'PUBLIC', false, false
), wanted AS (
    SELECT results.oid, 'TABLE' AS kind, NULL AS part, accounts.oid AS account, 'SELECT' AS privilege
    FROM results, accounts WHERE accounts.reads
    UNION ALL
    SELECT results.oid, 'TABLE', attribute.attname, accounts.oid, 'INSERT'
    FROM results, accounts, pg_attribute AS attribute
    WHERE accounts.adds AND attribute.attrelid = results.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
      AND attribute.attname <> 'id'
    UNION ALL
    SELECT sequences.oid, 'SEQUENCE', NULL, accounts.oid, 'USAGE'
    FROM sequences, accounts WHERE sequences.serial AND accounts.adds
), present AS (
    SELECT tables.oid, 'TABLE' AS kind, NULL AS part, given.grantee AS account, given.privilege_type AS privilege
    FROM tables, aclexplode(tables.relacl) AS given
    WHERE given.grantor = tables.relowner AND given.grantee IN (SELECT oid FROM accounts)
    UNION ALL
    SELECT tables.oid, 'TABLE', attribute.attname, given.grantee, given.privilege_type
    FROM tables
    JOIN pg_attribute AS attribute ON attribute.attrelid = tables.oid,
    aclexplode(attribute.attacl) AS given
    WHERE given.grantor = tables.relowner AND given.grantee IN (SELECT oid FROM accounts)
    UNION ALL
    SELECT sequences.oid, 'SEQUENCE', NULL, given.grantee, given.privilege_type
    FROM sequences, aclexplode(sequences.relacl) AS given
    WHERE given.grantor = sequences.relowner AND given.grantee IN (SELECT oid FROM accounts)
), needless AS (
    SELECT * FROM present EXCEPT SELECT * FROM wanted
), missing AS (
    SELECT * FROM wanted EXCEPT SELECT * FROM present
    UNION
    -- What is taken from a whole table is taken from its columns, too.
    SELECT wanted.* FROM wanted JOIN needless USING (oid, account, privilege) WHERE needless.part IS NULL
), policies AS (
    SELECT 'posture_select' AS name, 'FOR SELECT' AS scope, 'USING (true)' AS rows,
           (SELECT array_agg(oid ORDER BY oid) FROM accounts WHERE reads) AS accounts,
           (SELECT string_agg(name, ', ' ORDER BY name) FROM accounts WHERE reads) AS names
    UNION ALL
    SELECT 'posture_insert', 'FOR INSERT', 'WITH CHECK (true)',
           (SELECT array_agg(oid ORDER BY oid) FROM accounts WHERE adds),
           (SELECT string_agg(name, ', ' ORDER BY name) FROM accounts WHERE adds)
), changed_policies AS (
    SELECT policies.*, results.oid, there.oid IS NOT NULL AS there
    FROM results
    CROSS JOIN policies
    LEFT JOIN pg_policy AS there ON there.polrelid = results.oid AND there.polname = policies.name
    WHERE policies.accounts IS DISTINCT FROM (SELECT array_agg(role ORDER BY role) FROM unnest(there.polroles) AS role)
), statements AS (
    SELECT 1 AS step, format('REVOKE %%s%%s ON %%s %%s FROM %%s', privilege, '(' || quote_ident(part) || ')', kind, needless.oid::regclass, name) AS text
    FROM needless JOIN accounts ON accounts.oid = account
    UNION ALL
    SELECT 2, format('ALTER TABLE %%s ENABLE ROW LEVEL SECURITY', oid::regclass) FROM tables WHERE NOT relrowsecurity
    UNION ALL
    SELECT 3, format('DROP POLICY %%I ON %%s', name, oid::regclass) FROM changed_policies WHERE there
    UNION ALL
    SELECT 4, format('CREATE POLICY %%I ON %%s %%s TO %%s %%s', name, oid::regclass, scope, names, rows)
    FROM changed_policies WHERE accounts IS NOT NULL
    UNION ALL
    SELECT 5, format('GRANT %%s%%s ON %%s %%s TO %%s', privilege, '(' || quote_ident(part) || ')', kind, missing.oid::regclass, name)
    FROM missing JOIN accounts ON accounts.oid = account
)
SELECT text FROM statements ORDER BY step, text
