-- Posts bodies at random. Arguments: the path, and a file with one body a line.
local requests = {}

function init(arguments)
  math.randomseed(1)
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(arguments[2]) do
    requests[#requests + 1] = wrk.format("POST", arguments[1], nil, body)
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
