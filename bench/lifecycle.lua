-- Lives through tasks one after the other, on one connection: create, advance the clock to the end, ask for the
-- result. Meant for one connection: each request follows from the answer before it.
local step, number, task = 1, 0, nil
lifecycles, broken = 0, 0
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init()
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  if step == 1 then
    number = number + 1
    local body = '{"prompt":"A paper boat on a rainy street, take ' .. number
      .. '","duration":5,"quality":"720p","aspectRatio":"16:9"}'
    return wrk.format("POST", "/api/v1/runway/generate", nil, body)
  elseif step == 2 then
    return wrk.format("POST", "/_mock/clock/advance", nil, '{"by":"30m"}')
  end
  return wrk.format("GET", "/api/v1/runway/record-detail?taskId=" .. task)
end

function response(status, headers, body)
  if step == 1 then
    task = body:match('"taskId":"(%x+)"')
  elseif step == 3 then
    lifecycles = lifecycles + 1
    if not body:find('"state":"success"', 1, true) then broken = broken + 1 end
  end
  step = step % 3 + 1
end

function done(summary)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout + threads[1]:get("broken")
  print(string.format('summary {"requests": %d, "micros": %d, "errors": %d, "lifecycles": %d}',
    summary.requests, summary.duration, errors, threads[1]:get("lifecycles")))
end
