-- Asks for one path again and again. Arguments: the path, and "fresh" to ask by another address each time.
local one, path, count = nil, nil, 0

function init(arguments)
  path = arguments[1]
  one = arguments[2] ~= "fresh" and wrk.format("GET", path) or nil
end

function request()
  if one then return one end
  count = count + 1
  return wrk.format("GET", path .. "&n=" .. count)
end

function done(summary)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('summary {"requests": %d, "micros": %d, "errors": %d}', summary.requests, summary.duration, errors))
end
