-- Polls the same task over and over, each time by another address. Argument: the path with its query.
local path, count = nil, 0

function init(arguments)
  path = arguments[1]
end

function request()
  count = count + 1
  return wrk.format("GET", path .. "&n=" .. count)
end

function done(summary)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('summary {"requests": %d, "micros": %d, "errors": %d}', summary.requests, summary.duration, errors))
end
