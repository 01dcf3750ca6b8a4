-- What wrk sends: POST requests whose bodies are one prepared body with a fresh nonce at every mark, so that no two
-- requests share an idempotency key.
--
--   wrk ... -s wrk.lua URL -- BODY_FILE MARK RUN
--
-- RUN is a text that no other run has. The API key comes in HEADGATE_KEY, since arguments can be read by others. The last
-- line of the output is JSON.

local pieces, run
local number = 0

-- Global: that is how the thread that sends hands them to the one that sums up.
refused, failed = 0, 0

local sender

local function split(text, mark)
  local found, start = {}, 1
  while true do
    local from, to = text:find(mark, start, true)
    found[#found + 1] = text:sub(start, from and from - 1)
    if not from then
      return found
    end
    start = to + 1
  end
end

function setup(thread)
  sender = thread
end

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  pieces = split(file:read("*a"), arguments[2])
  file:close()
  run = arguments[3]
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["X-Api-Key"] = os.getenv("HEADGATE_KEY")
end

function request()
  number = number + 1
  return wrk.format(nil, nil, nil, table.concat(pieces, string.format("%s%07x", run, number)))
end

function response(status)
  if status == 429 then
    refused = refused + 1
  elseif status ~= 200 then
    failed = failed + 1
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"calls": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    sender:get("refused"), sender:get("failed") + errors.connect + errors.read + errors.write + errors.timeout
  ))
end
