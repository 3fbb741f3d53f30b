-- Every key name of one queue. `base` is the queue's own prefix with its hash tag, `ardiq:{emails}:`.
local M = {}

-- Most calls are about the same queue, lane and worker as the one before: a name is joined anew only for another. The server
-- may kill a call between any two instructions (FUNCTION KILL): whose key it is, is written last.
local function of_queue(name)
  local last_base, key
  return function(base)
    if base ~= last_base then
      last_base = nil
      key = base .. name
      last_base = base
    end
    return key
  end
end

local function of(prefix)
  local last_base, last_name, key
  return function(base, name)
    if base ~= last_base or name ~= last_name then
      last_base = nil
      last_name, key = name, base .. prefix .. name
      last_base = base
    end
    return key
  end
end

-- The name of the queue.
function M.queue(base) return string.match(base, '{(.*)}:$') or '' end

function M.task(base, id) return base .. 'task:' .. id end
function M.held(base, id) return base .. 'held:' .. id end
function M.waiters(base, id) return base .. 'waiters:' .. id end
function M.log(base, id) return base .. 'log:' .. id end
function M.stream(base, id) return base .. 'stream:' .. id end
function M.steps(base, id) return base .. 'steps:' .. id end
function M.signals(base, id) return base .. 'signals:' .. id end
function M.nodes(base, id) return base .. 'nodes:' .. id end
function M.items(base, id) return base .. 'items:' .. id end
function M.line(base, lane, line) return base .. 'line:' .. lane .. ':' .. line end
function M.blocked(base, lane, bucket) return base .. 'blocked:' .. lane .. ':' .. bucket end

M.ready = of('ready:')
M.tombstones = of('tombstones:')
M.wake = of('wake:')
M.idle = of('idle:')
M.ring = of('ring:')
M.running = of('running:')
M.window = of('window:')
M.slowed = of('slowed:')
M.saving = of('saving:')
M.worker = of('worker:')
M.aborts = of('aborts:')
M.mailbox = of('mailbox:')
M.stats_minute = of('stats:')
M.task_stats = of('task_stats:')

M.open = of('open:')
M.results = of('results:')
M.failed = of('failed:')
M.undo = of('undo:')

M.scheduled = of_queue('scheduled')
M.workflows = of_queue('workflows')
M.chores = of_queue('chores')
M.outbox = of_queue('outbox')
M.deadlines = of_queue('deadlines')
M.unique = of_queue('unique')
M.quarantined = of_queue('quarantined')
M.workers = of_queue('workers')
M.loads = of_queue('loads')
M.unknown_tasks = of_queue('unknown_tasks')
M.dead = of_queue('dead')
M.limits = of_queue('limits')
M.overrides = of_queue('overrides')
M.busy = of_queue('busy')
M.rates = of_queue('rates')
M.opens = of_queue('opens')
M.turns = of_queue('turns')
M.limited = of_queue('limited')
M.blocked_lanes = of_queue('blocked_lanes')
M.pauses = of_queue('pauses')
M.audit = of_queue('audit')
M.schedules = of_queue('schedules')
M.schedule_due = of_queue('schedule_due')
M.lanes = of_queue('lanes')
M.meta = of_queue('meta')
M.stats = of_queue('stats')
M.replicated = of_queue('replicated')

return M
