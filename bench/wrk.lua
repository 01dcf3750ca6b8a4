-- wrk ... -s wrk.lua URL -- BODY_FILE MARK RUN EVENTS
--
-- Sends one body with a fresh nonce at every mark, so that no two requests share an idempotency key. RUN is a text that no
-- other run has. The API key comes in HEADGATE_KEY, since arguments can be read by others. The last line is JSON.

-- Global: that is how the thread that sends hands them to the one that sums up.
refused, failed = 0, 0

local pieces, number = {}, 0
local run, stored, sender

function setup(thread) sender = thread end

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local text, mark, start = file:read("*a"), arguments[2], 1
  file:close()
  for from in text:gmatch("()" .. mark) do
    pieces[#pieces + 1] = text:sub(start, from - 1)
    start = from + #mark
  end
  pieces[#pieces + 1] = text:sub(start)
  run, stored = arguments[3], '"success_count": ?' .. arguments[4] .. "[,}]"
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["X-Api-Key"] = os.getenv("HEADGATE_KEY")
end

function request()
  number = number + 1
  return wrk.format(nil, nil, nil, table.concat(pieces, string.format("%s%07x", run, number)))
end

function response(status, headers, body)
  if status == 429 then refused = refused + 1
  elseif status ~= 200 or not body:find(stored) then failed = failed + 1 end
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
