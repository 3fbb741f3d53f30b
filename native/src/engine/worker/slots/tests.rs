use super::super::lanes::Lane;
use super::super::pool::Pool;
use super::super::prefetch::{STEP_BYTES, STEP_RECORDS};
use super::next::{GATHER, HELD_TOO_LONG};
use super::*;
use crate::engine::outcomes::COMPLETE;

const LEASE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

fn claim(token: i64, name: &str, now: Instant) -> Claim {
    Claim { received: now, ..Claim::example(token, name) }
}

fn reply(tokens: std::ops::Range<i64>, more: bool, wait_ms: i64, now: Instant) -> Reply {
    let claims = tokens.map(|token| claim(token, "task", now)).collect();
    Reply { more, wait_ms, answers: Vec::new(), claims }
}

fn outcomes(tokens: &[i64]) -> Outcomes {
    outcomes_with(tokens, b"null")
}

fn outcomes_with(tokens: &[i64], value: &[u8]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for &token in tokens {
        let id = format!("t{token}");
        let id = id.as_bytes();
        outcomes.push(&Outcome { id, token, outcome: COMPLETE, run_ms: 0, value, details: b"" });
    }
    outcomes
}

/// Parts of each, as text.
fn told(outcomes: &Outcomes) -> Vec<[String; 3]> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    outcomes.iter().map(|record| [record.id(), record.token(), record.outcome()].map(text)).collect()
}

/// As if it had asked for any number.
fn held_ahead(slots: &mut Slots) -> &mut Slots {
    slots.asked = usize::MAX;
    slots
}

/// A worker that has joined and made its first step, with the tasks `tokens`.
fn working(concurrency: usize, tokens: std::ops::Range<i64>, more: bool, now: Instant) -> Slots {
    let thread_tasks = HashSet::from([b"threaded".to_vec()]);
    let mut slots = Slots::new(concurrency, None, thread_tasks, Lanes::new(vec!["default".into()]), None, now);
    slots.renewed(now + LEASE);
    assert_eq!(slots.next(now), Next::Step { outcomes: Outcomes::default(), want: concurrency, lanes: None });
    held_ahead(&mut slots).accept(&mut reply(tokens, more, -1, now), now);
    slots
}

fn settled(slots: &mut Slots, now: Instant) -> (Vec<String>, usize) {
    match slots.next(now) {
        Next::Step { outcomes, want, .. } => {
            (told(&outcomes).iter().map(|[id, _, outcome]| format!("{id} {outcome}")).collect(), want)
        }
        other => panic!("expected a step, got {other:?}"),
    }
}

#[test]
fn no_more_is_taken_than_there_are_slots() {
    let now = Instant::now();
    let mut slots = working(3, 1..6, false, now);
    assert_eq!(slots.take(100, now).0.len(), 3);
    assert_eq!(slots.take(100, now).0.len(), 0);
    slots.settle(outcomes(&[1, 2]), 0);
    assert_eq!(slots.take(1, now).0.len(), 1);
    assert_eq!(slots.take(100, now).0.len(), 1);
}

#[test]
fn an_idle_worker_steps_as_soon_as_something_is_settled() {
    let now = Instant::now();
    let mut slots = working(3, 1..2, false, now);
    slots.take(1, now);
    assert_eq!(slots.next(now), Next::Wait { until: Some(now + LOOK_AGAIN), block: true });
    assert!(slots.settle(outcomes(&[1]), 0), "the waiting loop was not woken");
    assert_eq!(settled(&mut slots, now), (vec!["t1 complete".into()], 3));
}

#[test]
fn a_loop_that_steps_is_not_woken() {
    let now = Instant::now();
    let mut slots = working(3, 1..3, true, now);
    slots.take(2, now);
    assert!(matches!(slots.next(now), Next::Step { want: 1, .. }));
    assert!(!slots.settle(outcomes(&[1]), 0));
    assert!(!slots.settle(outcomes(&[2]), 0));
    held_ahead(&mut slots).accept(&mut reply(3..3, false, -1, now), now);
    assert_eq!(settled(&mut slots, now).0, ["t1 complete", "t2 complete"]);
}

#[test]
fn a_token_is_passed_on_by_a_step_that_wants_nothing() {
    let now = Instant::now();
    let mut slots = working(1, 1..2, false, now);
    slots.take(1, now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    assert!(slots.poke());
    assert_eq!(settled(&mut slots, now), (vec![], 0));
}

#[test]
fn the_due_time_is_waited_for() {
    let now = Instant::now();
    let mut slots = working(1, 1..1, false, now);
    slots.poke();
    slots.next(now);
    held_ahead(&mut slots).accept(&mut reply(1..1, false, 250, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: Some(now + 250 * MS), block: true });
    assert_eq!(settled(&mut slots, now + 250 * MS), (vec![], 1));
}

#[test]
fn a_queue_that_is_owed_slots_looks_for_work_while_others_have_them() {
    let now = Instant::now();
    let pool = Pool::new(2, &[1, 1]);
    let other = pool.share(1).unwrap();
    assert_eq!(other.take(2), 2);
    let lanes = Lanes::new(vec!["default".into()]);
    let mut slots = Slots::new(2, None, HashSet::new(), lanes, pool.share(0), now);
    assert_eq!(settled(&mut slots, now), (vec![], 0));
    held_ahead(&mut slots).accept(&mut reply(1..1, false, 100, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: Some(now + 100 * MS), block: true });
    assert_eq!(settled(&mut slots, now + 100 * MS), (vec![], 0));
    held_ahead(&mut slots).accept(&mut reply(1..1, true, -1, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    other.tell(1, usize::MAX);
    assert_eq!(other.room(), 0, "the slot is the one that was asked for");
    assert_eq!(settled(&mut slots, now), (vec![], 1));
}

#[test]
fn what_is_handed_over_when_other_queues_have_the_slots_goes_back() {
    let now = Instant::now();
    let pool = Pool::new(3, &[1, 2]);
    let other = pool.share(1).unwrap();
    let lanes = Lanes::new(vec!["default".into()]);
    let mut slots = Slots::new(3, None, HashSet::new(), lanes, pool.share(0), now);
    slots.renewed(now + LEASE);
    assert_eq!(settled(&mut slots, now), (vec![], 3));
    held_ahead(&mut slots).accept(&mut reply(1..1, false, -1, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: true });
    other.tell(2, 2);
    let (news, wake) = slots.take_over((1..3).map(|token| claim(token, "task", now)).collect(), 0, false);
    assert!(news.tasks && wake);
    assert_eq!(other.take(1), 0, "the slot is for the one that stays");
    assert_eq!((slots.take(3, now).0.len(), settled(&mut slots, now)), (1, (vec!["t2 release".into()], 0)));
    held_ahead(&mut slots).accept(&mut reply(2..2, true, -1, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    other.tell(1, 1);
    assert_eq!(settled(&mut slots, now), (vec![], 1));
}

#[test]
fn work_left_behind_is_fetched_when_there_is_room() {
    let now = Instant::now();
    let mut slots = working(2, 1..3, true, now);
    assert!(matches!(slots.next(now), Next::Wait { block: false, .. }));
    slots.take(2, now);
    slots.settle(outcomes(&[1]), 0);
    assert_eq!(settled(&mut slots, now).1, 1);
}

#[test]
fn tasks_behind_a_full_worker_go_back() {
    let now = Instant::now();
    let mut slots = working(1, 1..4, false, now);
    slots.take(1, now);
    let Next::Wait { until: Some(until), .. } = slots.next(now) else { panic!("no time to look again") };
    assert_eq!(until, now + HELD_TOO_LONG);
    assert_eq!(settled(&mut slots, until), (vec!["t2 release".into(), "t3 release".into()], 0));
}

#[test]
fn tasks_nobody_comes_for_go_back_and_none_are_claimed_until_somebody_does() {
    let now = Instant::now();
    let mut slots = working(4, 1..3, false, now);
    let late = now + HELD_TOO_LONG;
    assert_eq!(settled(&mut slots, late), (vec!["t1 release".into(), "t2 release".into()], 0));
    held_ahead(&mut slots).accept(&mut reply(3..3, true, -1, late), late);
    assert_eq!(slots.next(late), Next::Wait { until: None, block: false });
    let (claims, wake) = slots.take(4, late);
    assert!(claims.is_empty() && wake);
    assert_eq!(settled(&mut slots, late), (vec![], 4));
}

#[test]
fn an_event_loop_that_does_not_come_is_called_once() {
    let now = Instant::now();
    let mut slots = working(4, 1..3, false, now);
    assert!(!slots.calls_loop(), "it was told of them");
    settled(&mut slots, now + HELD_TOO_LONG);
    assert!(slots.calls_loop());
    assert!(!slots.calls_loop());
}

#[test]
fn tasks_that_are_about_to_be_taken_stay() {
    let now = Instant::now();
    let mut slots = working(4, 1..4, false, now);
    slots.take(1, now + 400 * MS);
    let later = now + HELD_TOO_LONG;
    slots.look_at = None;
    assert_eq!(slots.next(later), Next::Wait { until: Some(later + 400 * MS), block: true });
}

#[test]
fn draining_hands_back_and_leaves_when_all_is_settled() {
    let now = Instant::now();
    let mut slots = working(2, 1..4, false, now);
    slots.take(2, now);
    slots.next(now);
    assert!(slots.drain());
    assert_eq!(settled(&mut slots, now), (vec!["t3 release".into()], 0));
    held_ahead(&mut slots).accept(&mut reply(4..4, true, -1, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    slots.settle(outcomes(&[1, 2]), 0);
    assert_eq!(settled(&mut slots, now), (vec!["t1 complete".into(), "t2 complete".into()], 0));
    held_ahead(&mut slots).accept(&mut reply(4..4, true, -1, now), now);
    assert_eq!(slots.next(now), Next::Leave);
}

#[test]
fn who_stops_waits_for_a_server_that_is_away_as_long_as_it_has_something_to_tell_and_a_lease() {
    let now = Instant::now();
    let over = now + LEASE;
    let mut slots = working(2, 1..4, false, now);
    slots.take(2, now);
    slots.next(now);
    assert_eq!(slots.parting(now), Parting::Busy, "it works");
    slots.drain();
    assert_eq!(slots.parting(over), Parting::Busy, "tasks run");
    slots.settle(outcomes(&[1, 2]), 0);
    assert_eq!(slots.parting(now), Parting::By(over, 3), "two ended, and one was not started");
    assert_eq!(settled(&mut slots, now).0.len(), 3);
    assert_eq!(slots.parting(now), Parting::By(over, 3), "they are on their way");
    assert_eq!(slots.parting(over), Parting::Late(3));
    held_ahead(&mut slots).accept(&mut reply(4..4, false, -1, now), now);
    assert_eq!(slots.parting(now), Parting::Now);
}

#[test]
fn a_lost_lease_voids_what_was_held() {
    let now = Instant::now();
    let mut slots = working(2, 1..4, false, now);
    slots.take(2, now);
    slots.settle(outcomes(&[1]), 0);
    assert_eq!(slots.lose(), 3);
    slots.renewed(now + LEASE);
    assert!(slots.take(2, now).0.is_empty());
    assert_eq!(settled(&mut slots, now), (vec![], 1));
    slots.settle(outcomes(&[2]), 0);
    assert_eq!(settled(&mut slots, now), (vec!["t2 complete".into()], 2));
}

#[test]
fn a_token_that_a_server_gives_out_again_is_another_attempt_here() {
    let now = Instant::now();
    let mut slots = working(4, 1..3, false, now);
    slots.take(2, now);
    slots.thread_runs_on(1, true);
    assert_eq!((slots.lose(), slots.lease_token(1)), (2, 0));
    slots.renewed(now + LEASE);
    slots.next(now);
    held_ahead(&mut slots).accept(&mut reply(1..3, false, -1, now), now);
    let claims = slots.take(1, now).0;
    assert_eq!((claims[0].id.as_slice(), claims[0].token), (&b"t1"[..], 3));
    assert_eq!((slots.lease_token(3), slots.abort(1, 1)), (1, (Some(3), false)));
    slots.settle(outcomes(&[1, 2, 3]), 0);
    assert_eq!(slots.abort(2, 1).0, None, "what is not started is known by the server's token, too");
    let Next::Step { outcomes, .. } = slots.next(now) else { panic!("no step") };
    let told: Vec<_> = told(&outcomes).iter().map(|outcome| outcome.join(" ")).collect();
    assert_eq!(told, ["t1 0 complete", "t2 0 complete", "t3 1 complete", "t2 2 release"]);
    assert_eq!((slots.started(), slots.abandoned_threads()), (0, 1));
}

#[test]
fn nothing_is_started_while_the_lease_may_be_over() {
    let now = Instant::now();
    let mut slots = working(2, 1..2, false, now);
    assert!(slots.take(2, now + LEASE).0.is_empty());
    assert!(slots.renewed(now + 2 * LEASE), "what was withheld was not announced again");
    assert_eq!(slots.take(2, now + LEASE).0.len(), 1);
    assert!(!slots.renewed(now + 3 * LEASE));
}

#[test]
fn an_unstarted_task_that_is_to_stop_goes_back() {
    let now = Instant::now();
    let mut slots = working(1, 1..3, false, now);
    slots.take(1, now);
    slots.next(now);
    assert_eq!(slots.abort(1, 0), (Some(1), false));
    assert_eq!(slots.abort(2, 0), (None, true));
    assert_eq!(settled(&mut slots, now), (vec!["t2 release".into()], 0));
}

/// A worker that has completed many tasks in little time and holds many more.
fn hurrying(now: Instant) -> Slots {
    let mut slots = working(10, 1..1, false, now);
    slots.prefetch.completed(4000, 0);
    slots.prefetch.stepped(now + 40 * MS, MS, 0, 0);
    slots.poke();
    assert!(matches!(slots.next(now), Next::Step { want: BATCH, .. }));
    held_ahead(&mut slots).accept(&mut reply(1..251, true, -1, now), now);
    slots
}

#[test]
fn outcomes_gather_while_there_is_plenty_to_start() {
    let now = Instant::now();
    let mut slots = hurrying(now);
    slots.take(9, now);
    slots.settle(outcomes(&[1, 2, 3]), 0);
    assert_eq!(slots.next(now), Next::Wait { until: Some(now + GATHER), block: false });
    assert!(!slots.settle(outcomes(&[4]), 0), "woken for less than a batch");
    assert!(slots.settle(outcomes(&(5..=BATCH as i64).collect::<Vec<_>>()), 0));
    assert_eq!(settled(&mut slots, now).0.len(), BATCH);
}

#[test]
fn outcomes_gather_no_longer_than_a_moment() {
    let now = Instant::now();
    let mut slots = hurrying(now);
    slots.take(9, now);
    slots.settle(outcomes(&[1]), 0);
    slots.next(now);
    assert_eq!(settled(&mut slots, now + GATHER).0, ["t1 complete"]);
}

#[test]
fn outcomes_do_not_gather_when_tasks_become_scarce() {
    let now = Instant::now();
    let mut slots = hurrying(now);
    slots.next(now);
    let mut woken = false;
    while slots.held() > slots.prefetch.target() / 2 {
        assert!(!woken, "woken too early");
        slots.started = 0;
        woken = slots.take(10, now).1;
    }
    assert!(woken);
    assert!(matches!(slots.next(now), Next::Step { .. }));
}

#[test]
fn threads_and_the_loop_share_the_slots() {
    let now = Instant::now();
    let mut slots = working(2, 1..1, false, now);
    slots.poke();
    slots.next(now);
    let claims = vec![claim(1, "threaded", now), claim(2, "task", now), claim(3, "threaded", now)];
    slots.waiting_threads = 3;
    let news = held_ahead(&mut slots).accept(&mut Reply { claims, ..reply(0..0, false, -1, now) }, now);
    assert_eq!(news, Some(News { tasks: true, threads: 2, idle: false }));
    assert_eq!(slots.take_for_thread(now).0.unwrap().token, 1);
    assert_eq!(slots.take(9, now).0.len(), 1);
    assert!(slots.take_for_thread(now).0.is_none());
    slots.settle(outcomes(&[2]), 0);
    assert_eq!(slots.take_for_thread(now).0.unwrap().token, 3);
}

#[test]
fn the_event_loop_is_called_when_a_thread_gives_a_slot_back() {
    let now = Instant::now();
    let mut slots = working(1, 1..1, false, now);
    slots.poke();
    slots.next(now);
    let claims = vec![claim(1, "threaded", now), claim(2, "task", now)];
    held_ahead(&mut slots).accept(&mut Reply { claims, ..reply(0..0, false, -1, now) }, now);
    assert!(slots.take_for_thread(now).0.is_some());
    assert!(slots.take(9, now).0.is_empty());
    assert!(!slots.calls_loop(), "there is no slot yet");
    slots.settle(outcomes(&[1]), 0);
    assert!(slots.calls_loop());
    assert!(!slots.calls_loop());
    assert_eq!(slots.take(9, now).0.len(), 1);
    slots.settle(outcomes(&[2]), 0);
    assert!(!slots.calls_loop(), "it left nothing");
}

#[test]
fn idle_is_nothing_ready_nothing_held_and_all_settled() {
    let now = Instant::now();
    let mut slots = working(2, 1..2, false, now);
    slots.take(2, now);
    slots.settle(outcomes(&[1]), 0);
    slots.next(now);
    assert!(!held_ahead(&mut slots).accept(&mut reply(2..2, true, -1, now), now).unwrap().idle);
    assert!(held_ahead(&mut slots).accept(&mut reply(2..2, false, 1000, now), now).unwrap().idle);
}

#[test]
fn a_step_is_cut_by_records_and_by_bytes() {
    let now = Instant::now();
    let mut slots = working(BATCH, 1..1, false, now);
    slots.settle(outcomes(&(1..=STEP_RECORDS as i64 + 1).collect::<Vec<_>>()), 0);
    assert_eq!(settled(&mut slots, now).0.len(), STEP_RECORDS);
    assert_eq!(settled(&mut slots, now).0.len(), 1);
    for token in 1..=3 {
        slots.settle(outcomes_with(&[token], &vec![b'x'; STEP_BYTES / 2 - 100]), 0);
    }
    assert_eq!(settled(&mut slots, now).0.len(), 2);
    assert_eq!(settled(&mut slots, now).0.len(), 1);
}

#[test]
fn a_thread_that_outlasts_its_task_keeps_its_slot() {
    let now = Instant::now();
    let mut slots = working(2, 1..3, false, now);
    slots.take(2, now);
    slots.thread_runs_on(1, true);
    slots.settle(outcomes(&[1]), 0);
    assert_eq!(slots.abandoned_threads(), 1);
    assert_eq!(settled(&mut slots, now), (vec!["t1 complete".into()], 0));
    held_ahead(&mut slots).accept(&mut reply(3..4, false, -1, now), now);
    assert!(slots.take(2, now).0.is_empty());
    slots.next(now);
    assert!(slots.thread_runs_on(1, false), "the loop is not told of the free slot");
    assert_eq!(slots.take(2, now).0.len(), 1);
    assert_eq!(slots.abandoned_threads(), 0);
}

#[test]
fn a_thread_that_ended_before_it_was_known_to_outlast_its_task_keeps_nothing() {
    let now = Instant::now();
    let mut slots = working(1, 1..2, false, now);
    slots.take(1, now);
    slots.thread_runs_on(1, false);
    slots.thread_runs_on(1, true);
    slots.settle(outcomes(&[1]), 0);
    assert_eq!(slots.abandoned_threads(), 0);
    assert_eq!(settled(&mut slots, now), (vec!["t1 complete".into()], 1));
}

#[test]
fn each_thread_that_one_task_leaves_behind_takes_a_slot() {
    let now = Instant::now();
    let mut slots = working(3, 1..2, false, now);
    slots.take(1, now);
    slots.thread_runs_on(1, true);
    slots.thread_runs_on(1, true);
    assert_eq!(slots.abandoned_threads(), 2);
    slots.settle(outcomes(&[1]), 0);
    assert_eq!(slots.abandoned_threads(), 2);
    assert_eq!(settled(&mut slots, now), (vec!["t1 complete".into()], 1));
    slots.thread_runs_on(1, false);
    assert_eq!(slots.abandoned_threads(), 1);
    slots.thread_runs_on(1, false);
    assert_eq!(slots.abandoned_threads(), 0);
    assert!(slots.abandoned.is_empty());
}

#[test]
fn a_lane_is_held_until_the_last_thread_that_its_task_left_behind_has_ended() {
    let now = Instant::now();
    let lane = crate::engine::worker::lanes::Lane { name: "default".into(), weight: None, limit: Some(1) };
    let mut slots = Slots::new(4, None, HashSet::new(), Lanes::new(vec![lane]), None, now);
    slots.renewed(now + LEASE);
    held_ahead(&mut slots).accept(&mut reply(1..2, false, -1, now), now);
    slots.take(1, now);
    slots.thread_runs_on(1, true);
    slots.thread_runs_on(1, true);
    slots.settle(outcomes(&[1]), 0);
    slots.thread_runs_on(1, false);
    assert_eq!(slots.open_lanes(), Some(vec![false]));
    slots.thread_runs_on(1, false);
    assert_eq!(slots.open_lanes(), Some(vec![true]));
}

#[test]
fn where_threads_left_behind_take_all_slots_nothing_is_claimed() {
    let now = Instant::now();
    let mut slots = working(1, 1..2, false, now);
    slots.take(1, now);
    slots.thread_runs_on(1, true);
    slots.settle(outcomes(&[1]), 0);
    assert_eq!(settled(&mut slots, now), (vec!["t1 complete".into()], 0));
    held_ahead(&mut slots).accept(&mut reply(2..2, true, -1, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    assert!(slots.drain());
    assert_eq!(slots.next(now), Next::Leave, "leaving does not wait for it");
}

/// A worker that has nothing to do, one of whose lanes has a limit, and that steps again.
fn stepping_with_a_limit(now: Instant) -> Slots {
    let limited = Lane { limit: Some(1), ..Lane::from("heavy") };
    let lanes = Lanes::new(vec!["default".into(), limited]);
    let mut slots = Slots::new(2, None, HashSet::new(), lanes, None, now);
    slots.renewed(now + LEASE);
    assert!(matches!(slots.next(now), Next::Step { want: 2, .. }));
    slots.accept(&mut reply(1..1, false, -1, now), now);
    slots.poke();
    assert!(matches!(slots.next(now), Next::Step { want: 2, .. }));
    slots
}

#[test]
fn what_is_handed_over_during_a_step_does_not_exceed_the_limit_of_its_lane() {
    let now = Instant::now();
    let heavy = |token| Claim { lane: b"heavy".into(), ..claim(token, "task", now) };
    let mut late = stepping_with_a_limit(now);
    late.accept(&mut Reply { claims: vec![heavy(2), heavy(1)], ..reply(1..1, false, -1, now) }, now);
    assert_eq!(settled(&mut late, now).0, ["t2 release"]);
    let mut overtaking = stepping_with_a_limit(now);
    overtaking.take_over(vec![heavy(1)], 0, false);
    overtaking.accept(&mut Reply { claims: vec![heavy(2), heavy(1)], ..reply(1..1, false, -1, now) }, now);
    assert_eq!(settled(&mut overtaking, now).0, ["t2 release"]);
}

#[test]
fn what_is_handed_over_during_a_step_takes_the_place_of_what_that_claims() {
    let now = Instant::now();
    let mut slots = stepping_with_a_limit(now);
    slots.take_over(vec![claim(1, "task", now)], 0, false);
    let claims = [3, 4, 1, 2].map(|token| claim(token, "task", now)).into();
    slots.accept(&mut Reply { claims, ..reply(1..1, false, -1, now) }, now);
    assert_eq!(slots.held(), 2);
    assert_eq!(settled(&mut slots, now), (vec!["t3 release".into(), "t4 release".into()], 0));
}

#[test]
fn what_is_handed_over_and_not_fetched_goes_back() {
    let now = Instant::now();
    let mut slots = working(1, 1..1, false, now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: true });
    assert!(slots.take_over(vec![claim(1, "task", now)], 0, false).1, "the waiting loop was not woken");
    assert!(matches!(slots.next(now), Next::Wait { until: Some(_), .. }));
    assert_eq!(settled(&mut slots, now + HELD_TOO_LONG).0, ["t1 release"]);
}

#[test]
fn a_worker_that_stops_while_something_runs_is_offered_no_more() {
    let now = Instant::now();
    let mut slots = working(2, 1..2, false, now);
    slots.take(1, now);
    slots.drain();
    assert_eq!(settled(&mut slots, now), (vec![], 0));
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    assert!(slots.take_over(vec![claim(2, "threaded", now)], 0, false).1, "the waiting loop was not woken");
    assert_eq!(settled(&mut slots, now).0, ["t2 release"]);
}

#[test]
fn a_free_event_loop_that_takes_what_it_brought_disturbs_nobody() {
    let now = Instant::now();
    let mut slots = working(3, 1..1, false, now);
    assert!(matches!(slots.next(now), Next::Wait { block: true, .. }));
    let (news, wake) = slots.take_over(vec![claim(1, "task", now)], 0, true);
    assert!(news.tasks && !wake);
    let (taken, wake) = slots.take(10, now);
    assert!(taken.len() == 1 && !wake);
    // Now a task may keep it from coming for the next.
    assert!(slots.take_over(vec![claim(2, "task", now)], 0, true).1);
    assert_eq!(slots.next(now), Next::Wait { until: Some(now + HELD_TOO_LONG), block: true });
    slots.take(10, now);
    assert!(slots.settle(outcomes(&[1, 2]), 0));
}

#[test]
fn what_lies_here_is_looked_after() {
    let now = Instant::now();
    let mut slots = working(1, 1..1, false, now);
    slots.next(now);
    assert!(!slots.look_after(), "there is nothing");
    slots.take_over(vec![claim(1, "task", now)], 0, true);
    assert!(slots.look_after());
    assert_eq!(slots.next(now), Next::Wait { until: Some(now + HELD_TOO_LONG), block: false });
    assert_eq!(settled(&mut slots, now + HELD_TOO_LONG).0, ["t1 release"]);
}

#[test]
fn a_loop_that_leaves_its_mail_gets_no_tasks_until_it_comes() {
    let now = Instant::now();
    let mut slots = working(2, 1..1, false, now);
    slots.next(now);
    assert!(slots.leaves_mail());
    assert_eq!(settled(&mut slots, now), (vec![], 0));
    // The step tells of what was handed over, and it goes back.
    slots.accept(&mut reply(1..2, false, -1, now), now);
    assert_eq!(settled(&mut slots, now), (vec!["t1 release".into()], 0));
    slots.accept(&mut reply(1..1, false, -1, now), now);
    assert_eq!(slots.next(now), Next::Wait { until: None, block: false });
    let (taken, wake) = slots.take(10, now);
    assert!(taken.is_empty() && wake);
    assert_eq!(settled(&mut slots, now), (vec![], 2), "it offers itself again");
}

#[test]
fn mail_of_a_lease_that_was_lost_is_void() {
    let now = Instant::now();
    let mut slots = working(2, 1..2, false, now);
    slots.lose();
    slots.renewed(now + LEASE);
    assert!(!slots.take_over(vec![claim(2, "task", now)], 0, true).0.tasks);
    assert_eq!(slots.abort(1, 0), (None, false));
    assert!(slots.take(10, now).0.is_empty());
    assert_eq!(slots.abort(1, slots.session()).0, Some(2), "of the lease it has now");
}

#[test]
fn a_token_that_names_another_task_than_a_message_said_shows_that_the_server_lost_data() {
    let now = Instant::now();
    let mut slots = working(2, 1..1, false, now);
    slots.poke();
    slots.next(now);
    // The event loop brings it while the step is under way, until the very moment in which that is accepted.
    slots.take_over(vec![claim(5, "task", now)], 0, true);
    let claims = vec![Claim { id: b"other".into(), ..claim(5, "task", now) }];
    assert_eq!(slots.accept(&mut Reply { claims, ..reply(0..0, false, -1, now) }, now), None);
}

/// A worker with one slot that holds a batch of three, and a task after it.
fn with_a_batch(now: Instant) -> Slots {
    let mut slots = working(1, 0..0, false, now);
    slots.batch_tasks.insert(b"task".to_vec());
    let claims = vec![Claim { received: now, ..Claim::example_batch(5, "task", 3) }, claim(8, "task", now)];
    held_ahead(&mut slots).accept(&mut Reply { more: false, wait_ms: -1, answers: Vec::new(), claims }, now);
    slots
}

#[test]
fn a_batch_takes_one_slot_until_its_last_task_is_settled() {
    let now = Instant::now();
    let mut slots = with_a_batch(now);
    assert_eq!(slots.held(), 2);
    let (taken, _) = slots.take(10, now);
    assert_eq!(taken.iter().map(|claim| claim.batch().count()).collect::<Vec<_>>(), [3]);
    slots.settle(outcomes(&[5]), 0);
    assert_eq!((slots.started(), slots.take(10, now).0.len()), (1, 0));
    slots.settle(outcomes(&[7, 6]), 0);
    assert_eq!(slots.started(), 0);
    assert_eq!(slots.take(10, now).0[0].token, 8);
    slots.settle(outcomes(&[8]), 0);
    assert_eq!(slots.started(), 0);
}

#[test]
fn the_tasks_in_a_batch_are_claims_of_their_own_where_nobody_takes_it() {
    let now = Instant::now();
    let mut slots = working(4, 0..0, false, now);
    let batch = |token, name| Claim { received: now, ..Claim::example_batch(token, name, 2) };
    let claims = vec![batch(5, "task"), batch(7, "threaded")];
    held_ahead(&mut slots).accept(&mut Reply { more: false, wait_ms: -1, answers: Vec::new(), claims }, now);
    let (taken, _) = slots.take(10, now);
    assert_eq!(taken.iter().map(|claim| (claim.token, claim.others.len())).collect::<Vec<_>>(), [(5, 0), (6, 0)]);
    let from_threads = [7, 8].map(|_| slots.take_for_thread(now).0.map(|claim| (claim.token, claim.others.len())));
    assert_eq!(from_threads, [Some((7, 0)), Some((8, 0))]);
    assert_eq!(slots.started(), 4);
}

#[test]
fn a_batch_goes_back_as_a_whole() {
    let now = Instant::now();
    let mut slots = with_a_batch(now);
    assert_eq!(slots.abort(6, 0).0, None, "one of a batch that was not started");
    slots.drain();
    let (released, _) = settled(&mut slots, now);
    assert_eq!(released, ["t5 release", "t6 release", "t7 release", "t8 release"]);
    assert_eq!(slots.next(now), Next::Leave);
}

#[test]
fn the_tokens_of_a_batch_are_above_all_before() {
    let now = Instant::now();
    let mut slots = with_a_batch(now);
    assert_eq!(slots.lose(), 8);
    slots.renewed(now + LEASE);
    let claims = vec![Claim { received: now, ..Claim::example_batch(1, "task", 2) }];
    held_ahead(&mut slots).accept(&mut Reply { more: false, wait_ms: -1, answers: Vec::new(), claims }, now);
    let (taken, _) = slots.take(10, now);
    assert_eq!(taken[0].batch().map(|one| one.token).collect::<Vec<_>>(), [9, 10]);
    assert_eq!(slots.lose(), 10);
}
