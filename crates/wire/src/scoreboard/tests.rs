//! Tests of the scoreboard.

use super::*;

#[test]
fn one_mapping_reads_what_another_writes() {
    let (board, descriptor) = Scoreboard::create(3).unwrap();
    let other = Scoreboard::attach(descriptor).unwrap();
    assert_eq!((board.lines(), other.lines()), (3, 3));
    let line = other.line(2).unwrap();
    line.claim(4711, 0);
    line.begin("abc GET /path");
    let reading = board.line(2).unwrap().read().unwrap();
    assert_eq!((reading.pid, reading.busy, reading.served), (4711, true, 1));
    assert_eq!(reading.request, b"abc GET /path");
    line.end();
    assert!(!board.line(2).unwrap().read().unwrap().busy);
    assert!(board.line(3).is_none());
}

#[test]
fn a_scoreboard_grows_in_all_processes_up_to_its_room() {
    let (board, descriptor) = Scoreboard::create_with_room(1, 4).unwrap();
    let worker = Scoreboard::attach(descriptor).unwrap();
    board.line(3).unwrap().claim(4711, 0);
    assert!((board.lines(), worker.lines()) == (1, 1) && !worker.has_idle());
    board.use_lines(4);
    assert!((board.lines(), worker.lines()) == (4, 4) && worker.has_idle());
    board.use_lines(5);
    assert_eq!((board.lines(), board.room()), (4, 4));
    assert!(board.line(4).is_none());
}

#[test]
fn generations_of_logs_are_counted_beside_the_lines() {
    let (board, descriptor) = Scoreboard::create(1).unwrap();
    let other = Scoreboard::attach(descriptor).unwrap();
    other.line(0).unwrap().claim(4711, 0);
    board.next_log_generation(LogKind::Access);
    assert_eq!(
        (other.log_generation(LogKind::Error), other.log_generation(LogKind::Access)),
        (0, 1)
    );
    assert_eq!(other.line(0).unwrap().read().map(|reading| reading.pid), Some(4711));
}

#[test]
fn a_long_request_is_cut_and_never_mixed_with_the_last_one() {
    let (board, _descriptor) = Scoreboard::create(1).unwrap();
    let line = board.line(0).unwrap();
    line.begin(&"x".repeat(1000));
    assert_eq!(line.read().unwrap().request, vec![b'x'; REQUEST_WORDS * 8]);
    line.begin("short");
    assert_eq!(line.read().unwrap().request, b"short");
}

#[test]
fn a_file_that_is_too_short_is_refused_and_any_bytes_can_be_read() {
    let descriptor = memfd_create("scoreboard", MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&descriptor, b"short").unwrap();
    assert!(Scoreboard::attach(descriptor.try_clone().unwrap()).is_err());
    rustix::io::write(&descriptor, &[0xfe; 1000]).unwrap();
    let board = Scoreboard::attach(descriptor).unwrap();
    for number in 0..board.room() {
        let _ = board.line(number).unwrap().read();
        let _ = board.line(number).unwrap().left_for(1);
    }
    assert!(board.lines() > 0);
}

#[test]
fn a_process_with_the_descriptor_cannot_cut_the_memory() {
    let (board, descriptor) = Scoreboard::create(1).unwrap();
    assert!(ftruncate(&descriptor, 0).is_err());
    assert!(ftruncate(&descriptor, 1 << 20).is_err());
    board.line(0).unwrap().claim(4711, 0);
    assert_eq!(board.line(0).unwrap().read().map(|reading| reading.pid), Some(4711));
}

#[test]
fn a_wakeup_is_needed_if_no_thread_of_any_worker_is_idle_or_always() {
    let (board, descriptor) = Scoreboard::create(3).unwrap();
    let worker = Scoreboard::attach(descriptor).unwrap();
    assert!(!board.has_idle(), "there is no worker");
    let (first, second) = (worker.line(0).unwrap(), worker.line(2).unwrap());
    first.claim(1, 0);
    second.claim(2, 0);
    first.begin("request");
    assert!(board.has_idle() && !worker.needs_wakeup());
    second.begin("request");
    assert!(!board.has_idle());
    assert!(!worker.needs_wakeup(), "the supervisor does not want one");
    board.want_wakeup(Wakeup::WhenBusy);
    assert!(worker.needs_wakeup());
    second.end();
    assert!(!worker.needs_wakeup());
    board.want_wakeup(Wakeup::Always);
    assert!(worker.needs_wakeup());
    board.want_wakeup(Wakeup::WhenBusy);
    second.leave();
    assert!(worker.needs_wakeup(), "it accepts no further connection");
    first.end();
    assert_eq!(first.release().served, 1);
    assert!(!board.has_idle(), "its worker has exited");
}

#[test]
fn the_most_busy_threads_and_the_times_the_maximum_was_reached_are_recorded() {
    let (board, _descriptor) = Scoreboard::create(4).unwrap();
    board.set_capacity(2);
    let [first, second, third] = [0, 1, 2].map(|number| board.line(number).unwrap());
    let begin = |line: &ScoreboardLine| {
        line.claim(1, 0);
        line.begin("request");
        board.record_busy();
    };
    begin(first);
    assert_eq!((board.peak_busy(), board.max_reached()), (1, 0));
    begin(second);
    begin(third);
    assert_eq!((board.peak_busy(), board.max_reached()), (3, 1));
    [second, third].into_iter().for_each(ScoreboardLine::end);
    board.record_idle();
    begin(second);
    assert_eq!((board.peak_busy(), board.max_reached()), (3, 2));
}

#[test]
fn responses_are_counted_by_class_until_the_line_is_released() {
    let (board, _descriptor) = Scoreboard::create(1).unwrap();
    let line = board.line(0).unwrap();
    line.claim(1, 0);
    assert_eq!(line.read().unwrap().last_status, None);
    [200, 204, 404, 500, 0, 999].into_iter().for_each(|status| line.set_response(status));
    line.set_response(503);
    let reading = line.read().unwrap();
    assert_eq!((reading.responses, reading.last_status), ([0, 2, 0, 1, 2], Some(503)));
    assert_eq!(line.release().responses, [0, 2, 0, 1, 2]);
    line.claim(2, 0);
    assert_eq!(line.read().unwrap().counts(), ThreadCounts::default());
}

#[test]
fn a_thread_that_could_not_be_started_is_not_idle_and_counts_as_left() {
    let (board, _descriptor) = Scoreboard::create(1).unwrap();
    let line = board.line(0).unwrap();
    line.claim(1, 0);
    line.mark_missing();
    let reading = line.read().unwrap();
    assert!(reading.missing && !reading.busy && !reading.leaving, "{reading:?}");
    assert!(!board.has_idle());
    assert!(line.left_for(1).is_some() && line.left_for(2).is_none());
    line.claim(1, 0);
    assert!(!line.read().unwrap().missing && board.has_idle() && line.left_for(1).is_none());
}

#[test]
fn a_worker_finds_nothing_of_an_earlier_worker_on_its_line() {
    let (board, _descriptor) = Scoreboard::create(1).unwrap();
    let line = board.line(0).unwrap();
    line.claim(1, 0);
    for _ in 0..3 {
        line.begin("request");
    }
    assert_eq!((line.release().served, line.release().served), (3, 0));
    line.claim(2, 0);
    let reading = line.read().unwrap();
    assert_eq!((reading.served, reading.request.as_slice()), (0, &b""[..]));
    assert!(line.is_of(2) && !line.is_of(1));
}

#[test]
fn a_line_that_was_left_in_the_middle_of_a_change_is_unreadable_until_it_is_claimed() {
    let (board, _descriptor) = Scoreboard::create(1).unwrap();
    let line = board.line(0).unwrap();
    line.version.store(7, Ordering::Relaxed);
    assert_eq!(line.read(), None);
    line.claim(1, 0);
    assert_eq!(line.read().map(|reading| reading.pid), Some(1));
}
