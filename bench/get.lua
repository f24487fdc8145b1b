-- Asks for one path again and again. Argument: the path.
local one

function init(arguments)
  one = wrk.format("GET", arguments[1])
end

function request()
  return one
end

function done(summary)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('summary {"requests": %d, "micros": %d, "errors": %d}', summary.requests, summary.duration, errors))
end
