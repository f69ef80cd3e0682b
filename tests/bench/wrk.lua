-- One request per presigned path, each path once, for as long as wrk runs. When the paths run out, the thread stops and
-- the time until then counts (wrk itself still sleeps to the end of its duration).
-- Arguments after `--`: method, file of paths (one a line), body file.

local ffi = require("ffi")
ffi.cdef [[
    typedef struct { long seconds; long microseconds; } bench_time;
    int gettimeofday(bench_time *now, void *zone);
]]

local threads = {}
local paths = {}
local next_path = 0
local method, body
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
    for line in io.lines(args[2]) do
        paths[#paths + 1] = line
    end
    if args[3] then
        local file = assert(io.open(args[3], "rb"))
        body = file:read("*a")
        file:close()
    end
end

function request()
    if next_path == 0 then
        started_us = now_us()
    end
    next_path = next_path + 1
    if next_path > #paths then
        -- what is under way on the other connections is not counted: at most one request per connection
        finished_us = now_us()
        wrk.thread:stop()
        next_path = #paths
    end
    return wrk.format(method, paths[next_path], nil, body)
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
