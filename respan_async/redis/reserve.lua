-- Updates the account's sliding log in one step. KEYS[1] is its only key, a sorted set:
--
--   flight <id>     a granted slot, held or in flight; the score is when it comes back if no answer is ever reported
--   answered <id>   a slot that was answered; the score is one period after the answer, when it comes back
--
-- and, with negative scores, members that are not slots:
--
--   epoch <name>    which log this is (score -1); names of logs that began full start with "full"
--   full            (minus) until when this log counts as full, because the contents of the previous one are lost
--   spread          (minus) when the next slot of a batch may begin
--   pause           (minus) until when the server has asked all processes to wait
--   starved         (minus) how many urgent slots were granted since a batch was turned away for their sake
--   spared          (minus) until when batches leave one slot free, since there was an interactive call
--   urgent <owner>  (minus) until when a process has interactive calls that wait
--   heard           (minus) time of the last reply that a client has confirmed receiving
--
-- Times are in microseconds by this server's clock. Rules:
--
-- 1. When all slots are taken, a new one takes over from the one that comes back next, so a grant may lie in the
--    future.
-- 2. A batch is spread, one slot every interval, unless all it has left fits into what is free.
-- 3. A batch gets only every twentieth slot while another process has interactive calls that wait.
-- 4. A log that its users knew and that has vanished is replaced by one that counts as full for a period. So is a log
--    that no process could reach for a period: its users have used their shares, and may do so a little longer.
-- 5. If this server's clock was set back, all times in the log are set back as far.
local key = KEYS[1]
local limit, period, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local owner, epoch, fresh = ARGV[4], ARGV[5], ARGV[6]
local urgent, patient, waiting = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local left, first = tonumber(ARGV[10]), tonumber(ARGV[11])
local away, heard = tonumber(ARGV[12]), tonumber(ARGV[13])
local REPORTS = 14

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = period / limit
local catch_up = math.max(interval, 20000)

local function number(value)
    return string.format('%.0f', value)
end

local function put(member, score)
    redis.call('ZADD', key, number(score), member)
end

local function noted(member)
    return -tonumber(redis.call('ZSCORE', key, member) or 0)
end

local function used()
    return redis.call('ZCOUNT', key, '(' .. number(now), '+inf')
end

-- The slot whose expiry brings the taken count below the limit. The count may exceed the limit, after requests were
-- sent without this log.
local function next_to_come(taken, room)
    local found = redis.call('ZRANGEBYSCORE', key, '(' .. number(now), '+inf', 'WITHSCORES', 'LIMIT', taken - room, 1)
    return found[1], tonumber(found[2])
end

local back = noted('heard') - now
if back > 0 then
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for index = 1, #found, 2 do
        local score = tonumber(found[index + 1])
        if math.abs(score) > 1000 then
            put(found[index], score - (score > 0 and back or -back))
        end
    end
end

-- The time when the asker heard a reply, not when it asks: requests that piled up while this server stood still prove
-- nothing.
heard = math.max(noted('heard'), heard <= now and heard or 0)
redis.call('ZREMRANGEBYSCORE', key, 0, number(now))
redis.call('ZREMRANGEBYSCORE', key, number(2 * catch_up - now), -1000)

local known = redis.call('ZRANGEBYSCORE', key, -1, -1)[1]
known = known and string.sub(known, 7)
local unknown = epoch ~= '' and known ~= epoch and not (known and string.sub(known, 1, 4) == 'full')
local deserted = away > 0 and now - heard > period and noted('full') <= now
if unknown or deserted then
    if known then
        redis.call('ZREM', key, 'epoch ' .. known)
    end
    known = 'full' .. fresh
    put('full', -(now + period + away))
end
known = known or fresh
put('epoch ' .. known, -1)
put('heard', -heard)

-- The reports since the last request. Each has the same effect if it arrives twice.
for index = REPORTS, #ARGV, 3 do
    local kind, id, span = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
    local flight = 'flight ' .. id
    local score = tonumber(redis.call('ZSCORE', key, flight) or 0)
    if kind == 'answered' then
        redis.call('ZREM', key, flight)
        if period > span then
            put('answered ' .. id, now - span + period)
        end
    elseif kind == 'unused' and score > 0 then
        redis.call('ZREM', key, flight)
        local began = score - lease - period
        if began > now then
            put('answered ' .. id, began)
        end
        put('spread', -math.max(noted('spread') - interval, 0))
    elseif kind == 'flying' then
        put(flight, math.max(score, now + lease + period))
    elseif kind == 'pause' then
        put('pause', -math.max(noted('pause'), now + span))
    end
end

-- The time that the asking process must wait before it asks again.
local full = math.max(noted('full') - now, 0)
local again = math.max(noted('pause') - now, full)
if again <= 0 and urgent == 0 and patient > 0 then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. number(-now))) do
        if string.sub(member, 1, 7) == 'urgent ' and string.sub(member, 8) ~= owner then
            again = math.max(again, noted(member) - now)
        end
    end
    if again > 0 and noted('starved') > 20 then
        again = 0
    elseif again > 0 and noted('starved') == 0 then
        put('starved', -2)
    end
end

-- If interactive calls come, and slots are many, batches leave one free, so that the next interactive call does not
-- wait.
local sparing = limit
if urgent > 0 then
    put('spared', -(now + 5 * period))
elseif limit >= 50 and noted('spared') > now then
    sparing = limit - 1
end

-- Slots whose time lies ahead. A slot in flight comes back at most one lease and one period from now.
local held = redis.call('ZCOUNT', key, '(' .. number(now + lease + period), '+inf')

local grants = {}
local wanted = again <= 0 and math.max(urgent, patient) or 0
for index = 0, wanted - 1 do
    local taken = used()
    local fits = urgent > 0 or left - index <= limit - taken
    local room = fits and limit or sparing
    local begins, before_it = now, nil
    if taken >= room then
        before_it, begins = next_to_come(taken, room)
    end
    local spread = noted('spread')
    if not fits then
        begins = math.max(begins, spread)
    end
    local flight = 'flight ' .. owner .. ':' .. number(first + index)
    local before = redis.call('ZSCORE', key, flight)
    if before then
        -- The same request again, because the reply was lost: the grant stands.
        grants[#grants + 1] = math.max(before - lease - period - now, 0)
    elseif begins > now and #grants > 0 then
        break
    elseif begins > now + period then
        -- All slots are in flight: the first to be answered comes back a period later, so that none can be missed.
        again = math.min(begins - now, period / 8)
        break
    else
        if before_it then
            redis.call('ZREM', key, before_it)
        end
        put(flight, begins + lease + period)
        put('spread', -(math.max(spread, begins - catch_up) + interval))
        grants[#grants + 1] = begins - now
        if urgent == 0 then
            redis.call('ZREM', key, 'starved')
        elseif noted('starved') > 0 then
            redis.call('ZINCRBY', key, -1, 'starved')
        end
    end
    if begins > now then
        break
    end
end

if waiting == 0 or (urgent > 0 and urgent <= #grants) then
    redis.call('ZREM', key, 'urgent ' .. owner)
elseif urgent > 0 then
    local until_then = #grants > 0 and grants[#grants] or again
    put('urgent ' .. owner, -(now + until_then + math.max(interval / 2, 50000)))
end

redis.call('PEXPIRE', key, number((2 * period + 2 * lease) / 1000 + 60000))

local taken = used()
local soonest = full
if full == 0 and taken >= limit then
    local _, comes = next_to_come(taken, limit)
    soonest = math.min(comes - now, period) -- one that is in the air may be answered now
end
local reply = { known, full > 0 and limit or taken, held, number(now), number(soonest), number(again), number(full) }
for _, grant in ipairs(grants) do
    reply[#reply + 1] = number(grant)
end
return reply
