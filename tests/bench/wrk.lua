-- One request per presigned path, each path once, for as long as wrk runs. When the paths run out, the thread stops and
-- the time until then counts (wrk itself still sleeps to the end of its duration).
-- Arguments after `--`: method, file of paths (one a line), body file. The paths are read as they are needed: with all of
-- them in memory collecting garbage, 64 KiB for each body, was half of what a PUT cost here.

local ffi = require("ffi")
ffi.cdef [[
    typedef struct { long seconds; long microseconds; } bench_time;
    int gettimeofday(bench_time *now, void *zone);
]]

local threads = {}
local method, next_path, path, head_end
started_us, finished_us = 0, 0

local function now_us()
    local now = ffi.new("bench_time[1]")
    ffi.C.gettimeofday(now, nil)
    return tonumber(now[0].seconds) * 1e6 + tonumber(now[0].microseconds)
end

function setup(thread)
    threads[#threads + 1] = thread
end

function init(args)
    method = args[1]
    next_path = io.lines(args[2])
    local body
    if args[3] then
        local file = assert(io.open(args[3], "rb"))
        body = file:read("*a")
        file:close()
    end
    head_end = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n"
    if body then
        head_end = head_end .. "Content-Length: " .. #body .. "\r\n"
    end
    head_end = head_end .. "\r\n" .. (body or "")
end

function request()
    if not path then
        started_us = now_us()
    end
    local following = next_path()
    if following then
        path = following
    else
        -- what is under way on the other connections is not counted: at most one request per connection
        finished_us = now_us()
        wrk.thread:stop()
        next_path = function() end
    end
    return method .. " " .. path .. head_end
end

function done(summary, latency, requests)
    local duration_us = summary.duration
    local exhausted = threads[1]:get("finished_us") > 0
    if exhausted then
        duration_us = threads[1]:get("finished_us") - threads[1]:get("started_us")
    end
    local e = summary.errors
    io.write(string.format(
        'frostbyte-bench {"requests":%d,"duration_us":%d,"exhausted":%s,"bytes":%d,"connect":%d,"read":%d,' ..
        '"write":%d,"status":%d,"timeout":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, duration_us, tostring(exhausted), summary.bytes, e.connect, e.read,
        e.write, e.status, e.timeout, latency:percentile(50), latency:percentile(99)))
end
