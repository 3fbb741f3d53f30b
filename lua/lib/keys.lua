-- Every key name of one queue. `base` is the queue's own prefix with its hash tag, `ardiq:{emails}:`.
local M = {}

function M.task(base, id) return base .. 'task:' .. id end
function M.ready(base, lane) return base .. 'ready:' .. lane end
function M.tombstones(base, lane) return base .. 'tombstones:' .. lane end
function M.wake(base, lane) return base .. 'wake:' .. lane end
function M.idle(base, lane) return base .. 'idle:' .. lane end
function M.scheduled(base) return base .. 'scheduled' end
function M.running(base, worker) return base .. 'running:' .. worker end
function M.held(base, id) return base .. 'held:' .. id end
function M.quarantined(base) return base .. 'quarantined' end
function M.workers(base) return base .. 'workers' end
function M.worker(base, worker) return base .. 'worker:' .. worker end
function M.loads(base) return base .. 'loads' end
function M.aborts(base, worker) return base .. 'aborts:' .. worker end
function M.mailbox(base, name) return base .. 'mailbox:' .. name end
function M.waiters(base, id) return base .. 'waiters:' .. id end
function M.log(base, id) return base .. 'log:' .. id end
function M.unknown_tasks(base) return base .. 'unknown_tasks' end
function M.dead(base) return base .. 'dead' end
function M.pauses(base) return base .. 'pauses' end
function M.schedules(base) return base .. 'schedules' end
function M.schedule_due(base) return base .. 'schedule_due' end
function M.lanes(base) return base .. 'lanes' end
function M.meta(base) return base .. 'meta' end
function M.stats(base) return base .. 'stats' end
function M.replicated(base) return base .. 'replicated' end
function M.stats_minute(base, minute) return base .. 'stats:' .. minute end
function M.task_stats(base, minute) return base .. 'task_stats:' .. minute end

return M
