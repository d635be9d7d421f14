-- name: has_namespace
-- Whether the schema exists. Ask this first, because CREATE SCHEMA IF NOT EXISTS requires the right to make schemas
-- even if the schema exists.
SELECT 1 FROM pg_namespace WHERE nspname = %(schema)s;

-- name: find_columns
-- The columns of tables with the names of a ledger's tables; every user may read them.
SELECT relname::text, attname::text FROM pg_class
JOIN pg_namespace ON pg_namespace.oid = relnamespace
JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname = %(schema)s AND relname IN ('meta', 'owners', 'tickets', 'attempts') AND attnum > 0 AND NOT attisdropped;

-- name: rights_to_make
-- The rights that this user lacks to make a ledger: on the database, or in an existing schema.
SELECT format('GRANT CREATE ON DATABASE %%I TO %%I', current_database(), current_user)
WHERE NOT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = %(schema)s)
    AND NOT has_database_privilege(current_database(), 'CREATE')
UNION ALL
SELECT format('GRANT %%s ON SCHEMA %%I TO %%I', wanted, nspname, current_user)
FROM pg_namespace, unnest(ARRAY['USAGE', 'CREATE']) AS wanted
WHERE nspname = %(schema)s AND NOT has_schema_privilege(pg_namespace.oid, wanted);

-- name: rights_to_use
-- The rights that the user of a ledger needs.
SELECT format('GRANT USAGE ON SCHEMA %%I TO %%I', %(schema)s::text, current_user)
UNION ALL
SELECT format(
    'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %%I TO %%I', %(schema)s::text, current_user
);

-- name: namespace
SELECT pg_advisory_xact_lock(1383297089, 1);
CREATE SCHEMA IF NOT EXISTS {schema};

-- name: schema
-- Version 2. Every time is by this server's clock, except `sent_at`, which is by the sender's.
-- One transaction; a second process waits for the lock, and finds everything made.
SELECT pg_advisory_xact_lock(1383297089, 1);

CREATE TABLE IF NOT EXISTS {schema}.meta (
    name text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE IF NOT EXISTS {schema}.owners (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease_until timestamptz NOT NULL,
    version int NOT NULL
);

CREATE TABLE IF NOT EXISTS {schema}.tickets (
    ticket text COLLATE "C" PRIMARY KEY,
    fields text NOT NULL,
    state text NOT NULL,
    owner bigint,
    epoch bigint NOT NULL,
    claimed_at timestamptz NOT NULL,
    key_id text,
    key text,
    secret bytea,
    issued_at timestamptz
);
CREATE INDEX IF NOT EXISTS tickets_undelivered ON {schema}.tickets (ticket) WHERE state = 'issued';
CREATE INDEX IF NOT EXISTS tickets_keys ON {schema}.tickets (key_id) WHERE key_id IS NOT NULL;

-- `noted_at` is when it was sent, by this server's clock. The tag is unique, so that an intent is noted once, even if
-- the statement is repeated.
CREATE TABLE IF NOT EXISTS {schema}.attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag text COLLATE "C" NOT NULL UNIQUE,
    ticket text COLLATE "C" NOT NULL,
    owner bigint NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL,
    name text,
    sent text NOT NULL,
    sent_at timestamptz NOT NULL,
    noted_at timestamptz NOT NULL,
    effect text NOT NULL DEFAULT 'unknown',
    reason text NOT NULL DEFAULT 'no answer was noted',
    key_id text,
    taken_over_at timestamptz
);
CREATE INDEX IF NOT EXISTS attempts_in_the_air ON {schema}.attempts (ticket) WHERE state = 'intent';
CREATE INDEX IF NOT EXISTS attempts_suspects ON {schema}.attempts (id) WHERE state = 'suspect';

INSERT INTO {schema}.meta (name, value) VALUES ('version', '2') ON CONFLICT (name) DO NOTHING;

-- name: migrate_1
-- Migrate from version 1, if none of its owners lives. The origin of its suspects is unknown, so all are taken over
-- now. A process of version 1 cannot become an owner after this, because it inserts no version.
DO $$ BEGIN
    PERFORM pg_advisory_xact_lock(1383297089, 1);
    LOCK TABLE {schema}.owners;
    IF (SELECT value FROM {schema}.meta WHERE name = 'version') = '1' THEN
        IF EXISTS (SELECT 1 FROM {schema}.owners WHERE lease_until > clock_timestamp()) THEN
            RAISE EXCEPTION 'workers of an older version are at work; end them, and make the schema again';
        END IF;
        DELETE FROM {schema}.owners;
        ALTER TABLE {schema}.owners ADD COLUMN version int NOT NULL;
        ALTER TABLE {schema}.attempts ADD COLUMN taken_over_at timestamptz;
        UPDATE {schema}.attempts SET state = 'suspect', taken_over_at = clock_timestamp()
        WHERE state IN ('intent', 'suspect');
        DELETE FROM {schema}.attempts WHERE state = 'void';
        UPDATE {schema}.meta SET value = '2' WHERE name = 'version';
    END IF;
END $$;

-- name: get_meta
-- The metadata, and whether the server commits durably.
SELECT name, value FROM {schema}.meta UNION ALL SELECT 'commit', current_setting('synchronous_commit');

-- name: bind
-- Bind the ledger to an account, unless another process was faster.
INSERT INTO {schema}.meta AS known (name, value) VALUES ('account', %(account)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE known.value = %(before)s;

-- name: mark_rotated
INSERT INTO {schema}.meta (name, value) VALUES ('cipher', %(key_id)s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: register_owner
-- Register a new owner, with its lease.
INSERT INTO {schema}.owners (lease_until, version)
VALUES (clock_timestamp() + make_interval(secs => %(lease)s), 2)
RETURNING id;

-- name: renew
-- Prolong a lease that has not been taken away.
UPDATE {schema}.owners SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE id = %(owner)s
RETURNING id;

-- name: reclaim_owners
-- Take over what owners with lapsed leases, or leaving owners, have left: their intents become suspects, taken over
-- (rules 3 and 5), and so do intents of owners already removed from `owners`. Their tickets stay claimed by a removed
-- owner: any owner may claim them when they are asked for. Locked rows are skipped, because another process is moving
-- them, and this statement runs regularly; so no process waits for another.
WITH lapsed AS MATERIALIZED (
    SELECT id FROM {schema}.owners
    WHERE CASE WHEN id = %(owner)s THEN %(leaving)s ELSE lease_until <= clock_timestamp() END
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.owners WHERE id IN (SELECT id FROM lapsed) RETURNING id
), abandoned AS MATERIALIZED (
    SELECT id FROM {schema}.attempts
    WHERE state = 'intent' AND state = %(intent)s AND (
        owner IN (SELECT id FROM gone) OR owner NOT IN (SELECT id FROM {schema}.owners)
    )
    FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.attempts SET state = %(suspect)s, taken_over_at = clock_timestamp()
WHERE id IN (SELECT id FROM abandoned);

-- name: find
-- A ticket whose owner is gone is as good as open: no process is at work on it.
SELECT fields, CASE WHEN state = %(claimed)s AND NOT EXISTS (
    SELECT 1 FROM {schema}.owners WHERE id = tickets.owner AND lease_until > clock_timestamp()
) THEN %(open)s ELSE state END, key, secret
FROM {schema}.tickets WHERE ticket = %(ticket)s;

-- name: find_for_certain
-- As `find`, for a key that is revoked if it does not belong to the ticket: the lock excludes a lagging standby.
SELECT fields, state, key, secret FROM {schema}.tickets WHERE ticket = %(ticket)s FOR UPDATE;

-- name: claim_attempt
-- Claim a ticket, or keep the claim on it, and note an intent: both or neither, because a duplicate tag is an error.
-- Another owner's ticket is claimed only when its lease has ended; that increments the epoch, and makes suspects of
-- that owner's intents (rule 3). A ticket for which no key was made, and none can have been, may be asked for with
-- other fields. Refuse the claim if the claimer's cipher key has been rotated out. The lease check uses the statement's
-- snapshot, so also require that the old owner has not re-claimed since the snapshot.
WITH claimed AS (
    INSERT INTO {schema}.tickets AS known (ticket, fields, state, owner, epoch, claimed_at)
    SELECT %(ticket)s, %(fields)s, %(claimed)s, %(owner)s, 1, clock_timestamp()
    WHERE NOT EXISTS (
        SELECT 1 FROM {schema}.meta
        WHERE name = 'cipher' AND value <> %(cipher)s::text AND value <> %(cipher_before)s::text
    )
    ON CONFLICT (ticket) DO UPDATE SET
        fields = excluded.fields,
        state = excluded.state,
        epoch = known.epoch + (known.owner IS DISTINCT FROM excluded.owner)::int,
        owner = excluded.owner,
        claimed_at = excluded.claimed_at
    WHERE (
        (known.state = %(open)s OR (known.state = %(claimed)s AND known.claimed_at < statement_timestamp() AND NOT EXISTS (
            SELECT 1 FROM {schema}.owners WHERE id = known.owner AND lease_until > clock_timestamp()
        ))) AND (known.fields = excluded.fields OR (known.claimed_at < statement_timestamp() AND NOT EXISTS (
            SELECT 1 FROM {schema}.attempts
            WHERE attempts.ticket = %(ticket)s AND attempts.state IN ('intent', 'suspect')
        )))
        OR (known.state = %(claimed)s AND known.fields = excluded.fields AND known.owner = excluded.owner)
    )
    RETURNING epoch
), others AS MATERIALIZED (
    SELECT id FROM {schema}.attempts
    WHERE state = 'intent' AND state = %(intent)s AND ticket = %(ticket)s AND owner <> %(owner)s
        AND EXISTS (SELECT 1 FROM claimed)
    FOR UPDATE SKIP LOCKED
), doubted AS (
    UPDATE {schema}.attempts SET state = %(suspect)s, taken_over_at = clock_timestamp()
    WHERE id IN (SELECT id FROM others)
)
INSERT INTO {schema}.attempts (tag, ticket, owner, epoch, state, name, sent, sent_at, noted_at)
SELECT %(tag)s, %(ticket)s, %(owner)s, epoch, %(intent)s, %(name)s, %(sent)s, to_timestamp(%(sent_at)s),
    clock_timestamp() - make_interval(secs => %(ago)s)
FROM claimed
RETURNING epoch;

-- name: find_claim
-- The epoch of an intent that may have been noted when the connection broke.
SELECT epoch FROM {schema}.attempts
WHERE tag = %(tag)s AND ticket = %(ticket)s AND owner = %(owner)s AND state = %(intent)s;

-- name: transition
-- Move an attempt, if it is in a state that the transition comes from.
UPDATE {schema}.attempts SET state = %(to)s WHERE tag = %(tag)s AND state = ANY (%(come_from)s::text[]) RETURNING 1;

-- name: forget_attempt
DELETE FROM {schema}.attempts WHERE tag = %(tag)s AND state = ANY (%(come_from)s::text[]);

-- name: mark_suspect
-- Called by the process that made the attempt and knows that no answer came, so it is not taken over (rule 5).
UPDATE {schema}.attempts SET state = %(to)s, effect = %(effect)s, reason = %(reason)s,
    key_id = coalesce(%(key_id)s, key_id), taken_over_at = NULL
WHERE tag = %(tag)s AND state = ANY (%(come_from)s::text[]);

-- name: record
-- A key is recorded only for the owner and the epoch that claimed the ticket, and while its attempt is not a suspect,
-- because a suspect's key may be being revoked at this moment. The ticket is locked first, as in `claim_attempt`.
WITH held AS MATERIALIZED (
    SELECT ticket FROM {schema}.tickets
    WHERE ticket = %(ticket)s AND state = %(claimed)s AND owner = %(owner)s AND epoch = %(epoch)s
    FOR UPDATE
), settled AS (
    UPDATE {schema}.attempts SET state = %(recorded)s
    WHERE tag = %(tag)s AND ticket = %(ticket)s AND owner = %(owner)s AND state = %(intent)s
        AND EXISTS (SELECT 1 FROM held)
    RETURNING tag
)
UPDATE {schema}.tickets SET state = %(issued)s, key_id = %(key_id)s, key = %(key)s, secret = %(secret)s,
    issued_at = clock_timestamp()
WHERE ticket = %(ticket)s AND EXISTS (SELECT 1 FROM settled)
RETURNING ticket;

-- name: is_recorded
-- Whether a key was recorded when the connection broke. The lock excludes a lagging standby.
SELECT 1 FROM {schema}.tickets JOIN {schema}.attempts USING (ticket)
WHERE ticket = %(ticket)s AND tickets.key_id = %(key_id)s AND tag = %(tag)s AND attempts.state = %(recorded)s
FOR UPDATE;

-- name: release
UPDATE {schema}.tickets SET state = %(open)s, owner = NULL
WHERE ticket = %(ticket)s AND state = %(claimed)s AND owner = %(owner)s AND epoch = coalesce(%(epoch)s, epoch);

-- name: erase
-- The secret was delivered, and is no longer kept.
UPDATE {schema}.tickets SET state = %(delivered)s, secret = NULL WHERE ticket = %(ticket)s AND state = %(issued)s;

-- name: undelivered
-- If the id in the cursor is damaged, the ids after it are found by their bytes.
-- Tickets that a live owner recorded less than `left_for` seconds ago are left out, and so are tickets recorded up to
-- that far in the future, because the clock may have been set back since.
SELECT ticket, key, secret FROM {schema}.tickets
WHERE state = 'issued' AND ticket > %(after)s
    AND (%(damaged)s::bytea IS NULL OR textsend(ticket) > %(damaged)s::bytea) AND (
    abs(extract(epoch FROM clock_timestamp())::float8 - extract(epoch FROM issued_at)::float8) >= %(left_for)s
    OR NOT EXISTS (SELECT 1 FROM {schema}.owners WHERE id = tickets.owner AND lease_until > clock_timestamp())
)
ORDER BY ticket LIMIT %(limit)s;

-- name: with_keys
SELECT ticket FROM {schema}.tickets WHERE key_id IS NOT NULL AND ticket > %(after)s
    AND (%(damaged)s::bytea IS NULL OR textsend(ticket) > %(damaged)s::bytea) ORDER BY ticket LIMIT %(limit)s;

-- name: suspects
-- The time of a takeover is converted to the asking process's clock, because its age is what matters.
SELECT tag, ticket, name, sent, extract(epoch FROM sent_at)::float8, effect, reason, key_id,
    %(now)s - (extract(epoch FROM clock_timestamp())::float8 - extract(epoch FROM taken_over_at)::float8)
FROM {schema}.attempts
WHERE state = 'suspect' ORDER BY id;

-- name: acquire_sweep_turn
-- Take the turn to sweep, unless another live owner took it less than `seconds` ago, or less than `seconds` in the
-- future, because the clock may have been set back since.
INSERT INTO {schema}.meta AS known (name, value)
VALUES ('sweep', %(owner)s::bigint || ' ' || extract(epoch FROM clock_timestamp())::float8)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
WHERE split_part(known.value, ' ', 1)::bigint = %(owner)s
    OR abs(extract(epoch FROM clock_timestamp())::float8 - split_part(known.value, ' ', 2)::float8) >= %(seconds)s
    OR NOT EXISTS (
        SELECT 1 FROM {schema}.owners
        WHERE id = split_part(known.value, ' ', 1)::bigint AND lease_until > clock_timestamp()
    )
RETURNING 1;

-- name: owns_key
SELECT 1 FROM {schema}.tickets WHERE key_id = %(key_id)s;

-- name: recent
-- The ages of the newest attempts that were sent within the last `seconds`. If the clock was set back, ages are below
-- 0. Attempts that seem to be sent more than `seconds` in the future are left out.
SELECT age FROM (
    SELECT extract(epoch FROM clock_timestamp())::float8 - extract(epoch FROM noted_at)::float8 AS age FROM {schema}.attempts
    ORDER BY id DESC LIMIT 20000
) AS newest
WHERE abs(age) < %(seconds)s ORDER BY age DESC;

-- name: waiting
-- Tickets that are not delivered, without their secrets.
SELECT ticket, key_id, extract(epoch FROM issued_at)::float8 FROM {schema}.tickets
WHERE state = 'issued' ORDER BY ticket;

-- name: count_tickets
SELECT state, count(*) FROM {schema}.tickets GROUP BY state;

-- name: count_attempts
SELECT state, count(*) FROM {schema}.attempts GROUP BY state;

-- name: secrets
-- All kept secrets, for the rotation of the cipher's key.
SELECT ticket, secret FROM {schema}.tickets
WHERE state = 'issued' AND secret IS NOT NULL AND ticket > %(after)s
    AND (%(damaged)s::bytea IS NULL OR textsend(ticket) > %(damaged)s::bytea) ORDER BY ticket LIMIT %(limit)s;

-- name: replace_secrets
-- Replace secrets that are still kept.
UPDATE {schema}.tickets SET secret = renewed.new
FROM unnest(%(tickets)s::text[], %(old)s::bytea[], %(new)s::bytea[]) AS renewed (ticket, old, new)
WHERE tickets.ticket = renewed.ticket AND secret = renewed.old
RETURNING 1;
