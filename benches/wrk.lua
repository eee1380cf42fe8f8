-- Compares status and body of each response for wrk.py, and prints the results of the run as JSON.
-- Argument: the file with the expected body.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   expected = file:read("*a")
   file:close()
   words = wrk.format()
   -- wrk makes one request to validate it, and does not send that.
   asked = -1
   wrong_status = 0
   wrong_body = 0
end

function request()
   asked = asked + 1
   return words
end

function response(status, fields, body)
   if status ~= 200 then
      wrong_status = wrong_status + 1
   elseif body ~= expected then
      wrong_body = wrong_body + 1
   end
end

local function sum(name)
   local all = 0
   for _, thread in ipairs(threads) do
      all = all + thread:get(name)
   end
   return all
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"asked": %d, "responses": %d, "seconds": %f, "status": %d, "body": %d, ' ..
      '"connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
      sum("asked"), summary.requests, summary.duration / 1e6,
      sum("wrong_status"), sum("wrong_body"),
      errors.connect, errors.read, errors.write, errors.timeout))
end
