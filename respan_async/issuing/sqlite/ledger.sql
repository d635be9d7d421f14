-- name: schema
-- Version 2. Times are seconds since 1970 by this machine's clock, read by SQLite. But leases end by the seconds for
-- which this machine has been awake, a clock that cannot be set and that all its processes share. So a sleep does not
-- end a lease that its owner had no time to prolong.
PRAGMA application_id = 0x52737041;
PRAGMA user_version = 2;

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,
    lease_until REAL NOT NULL,
    version INTEGER NOT NULL
);

CREATE TABLE tickets (
    ticket TEXT PRIMARY KEY,
    fields TEXT NOT NULL,
    state TEXT NOT NULL,
    owner INTEGER,
    epoch INTEGER NOT NULL,
    key_id TEXT,
    key TEXT,
    secret_id INTEGER,
    issued_at REAL
) WITHOUT ROWID;
CREATE INDEX tickets_undelivered ON tickets (ticket) WHERE state = 'issued';
CREATE INDEX tickets_keys ON tickets (key_id) WHERE key_id IS NOT NULL;

-- Secrets and attempts are in the order of creation, so that inserts append. Only unsettled attempts are looked for by
-- their tags, and they are few.
-- Secrets are in separate rows, which never move and never change their size, because SQLite overwrites deleted data,
-- but not the copies that are left behind when rows move from one page to another.
CREATE TABLE secrets (
    id INTEGER PRIMARY KEY,
    secret BLOB NOT NULL
);

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    ticket TEXT NOT NULL,
    owner INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    name TEXT,
    sent TEXT NOT NULL,
    sent_at REAL NOT NULL,
    effect TEXT NOT NULL DEFAULT 'unknown',
    reason TEXT NOT NULL DEFAULT 'no answer was noted',
    key_id TEXT,
    taken_over_at REAL
);
CREATE INDEX attempts_unsettled ON attempts (tag) WHERE state IN ('intent', 'suspect');

-- name: migrate_1
-- Migrate from version 1, none of whose owners lives. The origin of its suspects is unknown, so all are taken over now.
-- A process of version 1 cannot become an owner after this, because it inserts no version.
DELETE FROM owners;
ALTER TABLE owners ADD COLUMN version INTEGER NOT NULL;
ALTER TABLE attempts ADD COLUMN taken_over_at REAL;
UPDATE attempts SET state = 'suspect', taken_over_at = (julianday('now') - 2440587.5) * 86400.0
WHERE state IN ('intent', 'suspect');
DELETE FROM attempts WHERE state = 'void';
CREATE INDEX tickets_keys ON tickets (key_id) WHERE key_id IS NOT NULL;
PRAGMA user_version = 2;

-- name: register_owner
-- Register a new owner, with its lease.
INSERT INTO owners (token, lease_until, version)
VALUES (:token, :awake + :lease, 2)
RETURNING id;

-- name: renew
-- Prolong a lease that has not been taken away.
UPDATE owners SET lease_until = :awake + :lease
WHERE id = :owner
RETURNING id;

-- name: owner_tokens
SELECT token FROM owners;

-- name: owners
SELECT id, token, lease_until > :awake FROM owners WHERE id <> :owner;

-- name: retire
DELETE FROM owners WHERE id = :owner;

-- name: mark_all_of_suspect
-- The intents of an owner that is gone become suspects, taken over (rules 3 and 5).
UPDATE attempts SET state = :suspect, taken_over_at = (julianday('now') - 2440587.5) * 86400.0
WHERE state IN ('intent', 'suspect') AND state = :intent AND owner = :owner;

-- name: mark_ownerless_suspect
-- Intents of owners already removed from `owners`: no other statement would turn them into suspects (rules 3 and 5).
UPDATE attempts SET state = :suspect, taken_over_at = (julianday('now') - 2440587.5) * 86400.0
WHERE state IN ('intent', 'suspect') AND state = :intent AND owner NOT IN (SELECT id FROM owners);

-- name: find
-- A ticket whose owner is gone is as good as open: no process is at work on it.
SELECT fields, CASE WHEN state = :claimed AND NOT EXISTS (
    SELECT 1 FROM owners WHERE owners.id = tickets.owner AND lease_until > :awake
) THEN :open ELSE state END, key, (SELECT secret FROM secrets WHERE id = secret_id)
FROM tickets WHERE ticket = :ticket;

-- name: claim
-- Claim a ticket, or keep the claim on it; another owner's ticket only when its lease has ended, which increments the
-- epoch. A ticket for which no key was made, and none can have been, may be asked for with other fields. Refuse the
-- claim if the claimer's cipher key has been rotated out.
INSERT INTO tickets (ticket, fields, state, owner, epoch)
SELECT :ticket, :fields, :claimed, :owner, 1
WHERE NOT EXISTS (SELECT 1 FROM meta WHERE name = 'cipher' AND value <> :cipher AND value <> :cipher_before)
ON CONFLICT (ticket) DO UPDATE SET
    fields = :fields,
    state = :claimed,
    epoch = epoch + (owner IS NOT :owner),
    owner = :owner
WHERE (
    (state = :open OR (state = :claimed AND NOT EXISTS (
        SELECT 1 FROM owners WHERE owners.id = tickets.owner AND lease_until > :awake
    ))) AND (fields = :fields OR NOT EXISTS (
        SELECT 1 FROM attempts WHERE attempts.ticket = :ticket AND attempts.state IN ('intent', 'suspect')
    ))
    OR (state = :claimed AND fields = :fields AND owner = :owner)
)
RETURNING epoch;

-- name: mark_others_suspect
-- The intents of an owner that lost this ticket become suspects, taken over (rules 3 and 5).
UPDATE attempts SET state = :suspect, taken_over_at = (julianday('now') - 2440587.5) * 86400.0
WHERE state IN ('intent', 'suspect') AND state = :intent AND ticket = :ticket AND owner <> :owner;

-- name: claim_attempt
INSERT INTO attempts (tag, ticket, owner, epoch, state, name, sent, sent_at)
VALUES (:tag, :ticket, :owner, :epoch, :intent, :name, :sent, :sent_at);

-- name: mark_void
UPDATE attempts SET state = :to WHERE tag = :tag AND state IN ('intent', 'suspect') AND state = :intent;

-- name: forget_attempt
DELETE FROM attempts WHERE tag = :tag AND state IN ('intent', 'suspect') AND state = :intent;

-- name: mark_suspect
-- Called by the process that made the attempt and knows that no answer came, so it is not taken over (rule 5).
UPDATE attempts SET state = :to, effect = :effect, reason = :reason, key_id = coalesce(:key_id, key_id),
    taken_over_at = NULL
WHERE tag = :tag AND state IN ('intent', 'suspect');

-- name: record_attempt
UPDATE attempts SET state = :recorded
WHERE tag = :tag AND state IN ('intent', 'suspect') AND state = :intent AND owner = :owner;

-- name: record
-- A key is recorded only for the owner and the epoch that claimed the ticket, and while its attempt is not a suspect,
-- because a suspect's key may be being revoked at this moment.
UPDATE tickets SET state = :issued, key_id = :key_id, key = :key,
    secret_id = (SELECT coalesce(max(id), 0) + 1 FROM secrets),
    issued_at = (julianday('now') - 2440587.5) * 86400.0
WHERE ticket = :ticket AND state = :claimed AND owner = :owner AND epoch = :epoch AND EXISTS (
    SELECT 1 FROM attempts WHERE tag = :tag AND state IN ('intent', 'suspect') AND state = :intent AND owner = :owner
);

-- name: record_secret
INSERT INTO secrets (id, secret) SELECT secret_id, :secret FROM tickets WHERE ticket = :ticket;

-- name: release
UPDATE tickets SET state = :open, owner = NULL
WHERE ticket = :ticket AND state = :claimed AND owner = :owner AND epoch = coalesce(:epoch, epoch);

-- name: erase
-- The secret was delivered, was overwritten in place, and is no longer kept.
UPDATE tickets SET state = :delivered, secret_id = NULL WHERE ticket = CAST(:ticket AS TEXT) AND state = :issued;

-- name: erase_secret
UPDATE secrets SET secret = zeroblob(length(secret))
WHERE id = (SELECT secret_id FROM tickets WHERE ticket = CAST(:ticket AS TEXT) AND state = :issued);

-- name: undelivered
-- The cursor is given as bytes, because a damaged id may not be valid text to Python. Ids of another type than text are
-- left out, because they would come after all other ids.
-- Tickets that a live owner recorded less than `left_for` seconds ago are left out, and so are tickets recorded up to
-- that far in the future, because the clock may have been set back since.
SELECT ticket, key, (SELECT secret FROM secrets WHERE id = secret_id) FROM tickets
WHERE state = 'issued' AND ticket > CAST(:after AS TEXT) AND typeof(ticket) = 'text' AND (
    abs((julianday('now') - 2440587.5) * 86400.0 - issued_at) >= :left_for
    OR NOT EXISTS (
        SELECT 1 FROM owners
        WHERE owners.id = tickets.owner AND lease_until > :awake
    )
)
ORDER BY ticket LIMIT :limit;

-- name: with_keys
SELECT ticket FROM tickets WHERE key_id IS NOT NULL AND ticket > CAST(:after AS TEXT) AND typeof(ticket) = 'text' ORDER BY ticket LIMIT :limit;

-- name: waiting
-- Tickets that are not delivered, without their secrets.
SELECT ticket, key_id, issued_at FROM tickets WHERE state = 'issued' ORDER BY ticket;

-- name: suspects
SELECT tag, ticket, name, sent, sent_at, effect, reason, key_id, taken_over_at FROM attempts
WHERE state IN ('intent', 'suspect') AND state = 'suspect' ORDER BY id;

-- name: suspects_1
-- The suspects of version 1, which are taken over when it is migrated.
SELECT tag, ticket, name, sent, sent_at, effect, reason, key_id, (julianday('now') - 2440587.5) * 86400.0 FROM attempts
WHERE state IN ('intent', 'suspect') AND state = 'suspect' ORDER BY id;

-- name: close_suspect
UPDATE attempts SET state = :to WHERE tag = :tag AND state IN ('intent', 'suspect') AND state = :suspect;

-- name: acquire_sweep_turn
-- Take the turn to sweep, unless another live owner took it less than `seconds` ago, or less than `seconds` in the
-- future, because the clock may have been set back since.
INSERT INTO meta (name, value)
VALUES ('sweep', :owner || ' ' || ((julianday('now') - 2440587.5) * 86400.0))
ON CONFLICT (name) DO UPDATE SET value = excluded.value
WHERE CAST(value AS INTEGER) = :owner
    OR abs((julianday('now') - 2440587.5) * 86400.0 - CAST(substr(value, instr(value, ' ')) AS REAL)) >= :seconds
    OR NOT EXISTS (
        SELECT 1 FROM owners
        WHERE owners.id = CAST(meta.value AS INTEGER) AND lease_until > :awake
    );

-- name: owns_key
SELECT 1 FROM tickets WHERE key_id = :key_id;

-- name: recent
-- The ages of the newest attempts that were sent within the last `seconds`. If the clock was set back, ages are below
-- 0. Attempts that seem to be sent more than `seconds` in the future are left out.
SELECT age FROM (
    SELECT (julianday('now') - 2440587.5) * 86400.0 - sent_at AS age FROM attempts ORDER BY id DESC LIMIT 20000
)
WHERE abs(age) < :seconds ORDER BY age DESC;

-- name: count_tickets
SELECT state, count(*) FROM tickets GROUP BY state;

-- name: count_attempts
SELECT state, count(*) FROM attempts GROUP BY state;

-- name: count_commit
INSERT INTO meta (name, value) VALUES ('commits', '1') ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1
RETURNING CAST(value AS INTEGER);

-- name: get_meta
SELECT value FROM meta WHERE name = :name;

-- name: set_meta
INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = :value;

-- name: secrets
-- All kept secrets, for the rotation of the cipher's key.
SELECT ticket, secret FROM tickets JOIN secrets ON id = secret_id WHERE ticket > CAST(:after AS TEXT) AND typeof(ticket) = 'text' ORDER BY ticket LIMIT :limit;

-- name: replace_secret
UPDATE secrets SET secret = :secret
WHERE id = (SELECT secret_id FROM tickets WHERE ticket = CAST(:ticket AS TEXT)) AND secret = :old;
