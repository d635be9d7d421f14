-- The account's sliding log, moved in one step. KEYS[1] is its only key, a sorted set:
--
--   flight <id>     a slot that is granted, held or in the air; the score is when it comes back if nobody ever answers
--   answered <id>   a slot that was answered; the score is one period after the answer, when it comes back
--   filled <name>   a slot of a log that had vanished: nobody knows, so it counts as taken for one period
--
-- and, with negative scores, what is no slot:
--
--   epoch <name>    which log this is (score -1); names of logs that began full start with "full"
--   spread          (minus) when the next slot of a batch may begin
--   pause           (minus) until when the server has asked everybody to wait
--   starved         (minus) how many urgent slots were granted since a batch was turned away for their sake
--   spared          (minus) until when batches leave one slot free, since there was an interactive call
--   urgent <owner>  (minus) until when a process has interactive calls that wait
--   heard           (minus) when this last said a word that is known to have been heard
--
-- Times are in microseconds by this server's clock. When all slots are taken, a new one takes over from the one that comes
-- back next, so a grant may lie in the future.
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
    local score = redis.call('ZSCORE', key, member)
    return score and -tonumber(score)
end

local function used()
    return redis.call('ZCOUNT', key, '(' .. number(now), '+inf')
end

-- The slot that the next one takes over: the one with whose coming back there are fewer than there is room for. There may
-- be more than the limit, after some were sent without this log.
local function next_to_come(taken, room)
    local found = redis.call('ZRANGEBYSCORE', key, '(' .. number(now), '+inf', 'WITHSCORES', 'LIMIT', taken - room, 1)
    return found[1], tonumber(found[2])
end

-- When the asker says that it heard, not when it asks: what piled up while this server stood still is no sign of life.
heard = math.max(noted('heard') or 0, heard)
redis.call('ZREMRANGEBYSCORE', key, 0, number(now))
redis.call('ZREMRANGEBYSCORE', key, number(2 * catch_up - now), -1000)

-- No slot lies so far ahead, unless this server's clock was set back: then nobody knows when anything was.
local furthest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
local set_back = furthest[2] and tonumber(furthest[2]) > now + 3 * (period + lease) + away
if set_back then
    redis.call('DEL', key)
end

-- Which log is this? One that has vanished, as its users know, counts as full. So does one that nobody could reach for a
-- period: each of its users has gone on by itself since, and may do so a little longer.
local known = redis.call('ZRANGEBYSCORE', key, -1, -1)[1]
known = known and string.sub(known, 7)
local full = known and string.sub(known, 1, 4) == 'full'
local unknown = epoch ~= '' and known ~= epoch and not full
local deserted = away > 0 and now - heard > period
if unknown or deserted or set_back then
    if known then
        redis.call('ZREM', key, 'epoch ' .. known)
    end
    known = 'full' .. fresh
    for slot = used() + 1, limit do
        put('filled ' .. fresh .. ':' .. slot, now + period + away)
    end
elseif not known then
    known = fresh
end
put('epoch ' .. known, -1)
put('heard', -heard)

-- What has become of slots since the last time. Said twice, each of these means the same.
for index = REPORTS, #ARGV, 3 do
    local kind, id, span = ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2])
    local flight = 'flight ' .. id
    if kind == 'answered' then
        redis.call('ZREM', key, flight)
        if now - span + period > now then
            put('answered ' .. id, now - span + period)
        end
    elseif kind == 'unused' then
        local score = redis.call('ZSCORE', key, flight)
        if score then
            redis.call('ZREM', key, flight)
            local began = score - lease - period
            if began > now then
                put('answered ' .. id, began)
            end
            local spread = noted('spread')
            if spread then
                put('spread', -(spread - interval))
            end
        end
    elseif kind == 'flying' then
        local score = redis.call('ZSCORE', key, flight)
        put(flight, math.max(score and tonumber(score) or 0, now + lease + period))
    elseif kind == 'pause' then
        put('pause', -math.max(noted('pause') or 0, now + span))
    end
end

-- How long must whoever asks wait before it asks again?
local again = 0
local pause = noted('pause') or 0
if pause > now then
    again = pause - now
elseif urgent == 0 and patient > 0 then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. number(-now))) do
        if string.sub(member, 1, 7) == 'urgent ' and string.sub(member, 8) ~= owner then
            again = math.max(again, noted(member) - now)
        end
    end
    if again > 0 then
        local starved = noted('starved')
        if starved and starved > 20 then
            again = 0
        elseif not starved then
            put('starved', -2)
        end
    end
end

-- Where interactive calls come, and slots are many, batches leave one free: who comes then does not wait at all.
local sparing = limit
if urgent > 0 then
    put('spared', -(now + 5 * period))
elseif limit >= 50 and (noted('spared') or 0) > now then
    sparing = limit - 1
end

local grants = {}
if again == 0 then
    for index = 0, math.max(urgent, patient) - 1 do
        local taken = used()
        local fits = urgent > 0 or left - index <= limit - taken
        local room = fits and limit or sparing
        local begins, before_it = now, nil
        if taken >= room then
            before_it, begins = next_to_come(taken, room)
        end
        local spread = noted('spread') or 0
        if not fits then
            begins = math.max(begins, spread)
        end
        local flight = 'flight ' .. owner .. ':' .. number(first + index)
        local before = redis.call('ZSCORE', key, flight)
        if before then
            -- Asked again because the answer was lost on its way: the grant stands.
            grants[#grants + 1] = math.max(before - lease - period - now, 0)
        elseif begins > now and #grants > 0 then
            break
        elseif begins > now + period then
            -- All are in the air: the soonest to be answered comes back a period later, so nothing can be missed.
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
            elseif noted('starved') then
                redis.call('ZINCRBY', key, -1, 'starved')
            end
        end
        if begins > now then
            break
        end
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
local soonest = 0
if taken >= limit then
    local _, comes = next_to_come(taken, limit)
    soonest = math.min(comes - now, period) -- one that is in the air may be answered now
end
local reply = { known, (unknown or deserted or set_back) and 1 or 0, taken, number(now), number(soonest), number(again) }
for _, grant in ipairs(grants) do
    reply[#reply + 1] = number(grant)
end
return reply
