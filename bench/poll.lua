-- Polls tasks at random. Arguments: the path up to the id, and a file with one id a line.
local requests = {}

function init(arguments)
  math.randomseed(1)
  for id in io.lines(arguments[2]) do
    requests[#requests + 1] = wrk.format("GET", arguments[1] .. id)
  end
end

function request()
  return requests[math.random(#requests)]
end

function done(summary)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('summary {"requests": %d, "micros": %d, "errors": %d}', summary.requests, summary.duration, errors))
end
