//! Blocks of scoreboard lines, one for each worker process, and the status in their lines.

use std::{ops::Range, rc::Rc, time::Duration};

use control::pool_status::{RequestStatus, WorkerStatus};
use diagnostics::escape;
use rustix::process::Pid;
use wire::scoreboard::{Scoreboard, ScoreboardLine, ThreadCounts, ThreadStatus, Wakeup};

use crate::{pool::supervisor::slots::Worker, system::processes::ProcessUse};

/// All blocks of a pool. A block has one line for each thread of a worker.
pub(super) struct Blocks {
    /// The generation of the template that each block was given to.
    holders: Vec<Option<u64>>,
    /// Lines of a block.
    threads: usize,
    /// Counts of workers whose blocks are free again.
    past: ThreadCounts,
    scoreboard: Rc<Scoreboard>,
}

impl Blocks {
    /// Creates `count` blocks, for workers with this number of threads.
    pub(super) fn new(count: usize, threads: usize, scoreboard: Rc<Scoreboard>) -> Self {
        Self { holders: vec![None; count], threads, past: ThreadCounts::default(), scoreboard }
    }

    /// Adds blocks until there are `count`; there are never fewer than before.
    pub(super) fn grow(&mut self, count: usize) {
        self.holders.resize(count.max(self.holders.len()), None);
        self.scoreboard.use_lines(self.holders.len() * self.threads);
    }

    /// Takes a free block for a worker of `generation`; `None` if all are in use.
    pub(super) fn take(&mut self, generation: u64) -> Option<u32> {
        let block = self.holders.iter().position(Option::is_none)?;
        self.holders[block] = Some(generation);
        u32::try_from(block).ok()
    }

    /// The generation of the template that a block was given to.
    pub(super) fn holder(&self, block: u32) -> Option<u64> {
        *self.holders.get(usize::try_from(block).ok()?)?
    }

    /// Frees a block, and keeps the counts of its worker.
    pub(super) fn free(&mut self, block: u32) {
        let holder = usize::try_from(block).ok().and_then(|block| self.holders.get_mut(block));
        if let Some(holder) = holder {
            *holder = None;
            let lines = self.lines(block).filter_map(|line| self.scoreboard.line(line));
            lines.map(ScoreboardLine::release).for_each(|counts| self.past += counts);
        }
    }

    /// Sets the maximum number of workers, for the count of times at which all of them are busy.
    pub(super) fn set_capacity(&self, workers: usize) {
        self.scoreboard.set_capacity(workers.saturating_mul(self.threads));
    }

    /// Counts a request whose client has disconnected, and whose worker was killed for that.
    pub(super) fn count_aborted(&self) {
        self.scoreboard.count_aborted();
    }

    /// Frees the blocks of all workers of `generation`. Returns their numbers.
    pub(super) fn free_generation(&mut self, generation: u64) -> Vec<u32> {
        let freed: Vec<u32> = (0..)
            .zip(&self.holders)
            .filter(|(_, holder)| **holder == Some(generation))
            .map(|(block, _)| block)
            .collect();
        for &block in &freed {
            self.free(block);
        }
        freed
    }

    /// Requests and responses since the start of the pool, including those in progress.
    pub(super) fn counts(&self) -> ThreadCounts {
        let mut counts = self.past;
        self.all_readings().for_each(|reading| counts += reading.counts());
        counts
    }

    /// How long ago a request was served; zero if one is being served.
    pub(super) fn last_request(&self) -> Option<Duration> {
        let served = self.all_readings().filter(|line| line.pid != 0 && line.served > 0);
        served.map(|line| if line.busy { Duration::ZERO } else { line.elapsed() }).min()
    }

    /// Status of all threads of processes that are workers; some of these are leaving.
    pub(super) fn status(
        &self,
        is_worker: impl Fn(Pid) -> bool,
        is_leaving: impl Fn(Pid) -> bool,
    ) -> Vec<WorkerStatus> {
        let readings = (0..self.scoreboard.lines())
            .filter_map(|number| Some((number, self.scoreboard.line(number)?.read()?)))
            .filter(|(_, reading)| !reading.missing);
        let readings = readings
            .filter_map(|(number, reading)| Some((number, Pid::from_raw(reading.pid)?, reading)));
        // The threads of a worker follow each other, and are measured once.
        let mut measured = (0, ProcessUse::default());
        let mut used = |pid: i32| {
            if measured.0 != pid {
                measured = (pid, ProcessUse::of(pid).unwrap_or_default());
            }
            measured.1
        };
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        readings
            .filter(|(_, pid, _)| is_worker(*pid))
            .map(|(number, pid, reading)| {
                let ProcessUse { age, cpu, resident, is_stopped } = used(reading.pid);
                WorkerStatus {
                    pid: reading.pid,
                    number: u32::try_from(number / self.threads + 1).unwrap_or(u32::MAX),
                    thread: reading.thread,
                    busy: reading.busy,
                    leaving: is_leaving(pid),
                    stopped: is_stopped,
                    milliseconds: milliseconds(reading.elapsed()),
                    age: age.as_secs(),
                    requests: reading.served,
                    rss: resident,
                    cpu_milliseconds: milliseconds(cpu),
                    request: RequestStatus::from_line(&escape::visible(&reading.request)),
                    last_status: reading.last_status,
                }
            })
            .collect()
    }

    fn all_readings(&self) -> impl Iterator<Item = ThreadStatus> {
        // A worker may change the scoreboard's own number of lines.
        let lines = self.holders.len() * self.threads;
        (0..lines).filter_map(|number| self.scoreboard.line(number)?.read())
    }

    /// Is a thread of the block's worker busy?
    pub(super) fn is_busy(&self, block: u32) -> bool {
        self.readings(block).any(|reading| reading.busy)
    }

    /// May a worker that was asked to stop accept a connection? A busy one finds out that it is to
    /// stop before it accepts another. `None` if the worker does not use its lines.
    pub(super) fn may_accept(&self, pid: Pid, block: u32) -> Option<bool> {
        let mut own = self.readings(block).filter(|line| line.pid == number_of(pid)).peekable();
        own.peek()?;
        Some(own.any(|line| !(line.busy || line.leaving || line.missing)))
    }

    /// The memory in bytes that the block's worker has measured.
    pub(super) fn memory(&self, block: u32) -> Option<u64> {
        self.readings(block).map(|reading| reading.resident).max()
    }

    /// Has the worker begun to use its first line?
    pub(super) fn has_begun(&self, worker: &Worker) -> bool {
        let line =
            self.scoreboard.line(self.lines(worker.block).start).and_then(ScoreboardLine::read);
        line.is_some_and(|reading| reading.pid == number_of(worker.pid))
    }

    /// How long all threads of a worker have been idle; `None` if a thread is busy or is leaving.
    pub(super) fn idle_for(&self, worker: &Worker) -> Option<Duration> {
        let (mut least, mut served) = (Duration::MAX, 0);
        for line in self.lines(worker.block) {
            let reading = self.scoreboard.line(line)?.read()?;
            if reading.pid != number_of(worker.pid) || reading.busy || reading.leaving {
                return None;
            }
            if reading.missing {
                continue;
            }
            least = least.min(reading.elapsed());
            served += reading.served;
        }
        Some(if served == 0 { least.saturating_add(worker.idle_before) } else { least })
    }

    /// How long ago the last thread of a worker has left: no request is served since then.
    pub(super) fn left_for(&self, pid: Pid, block: u32) -> Option<Duration> {
        let each = self
            .lines(block)
            .map(|line| self.scoreboard.line(line)?.left_for(number_of(pid)))
            .collect::<Option<Vec<_>>>();
        each?.into_iter().min()
    }

    /// Has the worker with this pid served a request?
    pub(super) fn has_served(&self, pid: Pid) -> bool {
        self.all_readings().any(|reading| reading.pid == number_of(pid) && reading.served > 0)
    }

    /// The requests that the worker with this pid is serving.
    pub(super) fn requests_of(&self, pid: Pid) -> Vec<String> {
        self.all_readings()
            .filter(|reading| reading.busy && reading.pid == number_of(pid))
            .map(|reading| escape::visible(&reading.request))
            .collect()
    }

    /// Is a thread of any worker idle? If none is, the next thread that finds none idle rings the
    /// bell. The request comes before the check, so that no change is missed.
    pub(super) fn has_idle_or_asks_for_bell(&self) -> bool {
        self.scoreboard.want_wakeup(Wakeup::WhenBusy);
        let has_idle = self.scoreboard.has_idle();
        if !has_idle {
            self.scoreboard.want_wakeup(Wakeup::Never);
        }
        has_idle
    }

    /// Cancels the request for the bell.
    pub(super) fn cancel_bell(&self) {
        self.scoreboard.want_wakeup(Wakeup::Never);
    }

    fn readings(&self, block: u32) -> impl Iterator<Item = ThreadStatus> {
        self.lines(block).filter_map(|line| self.scoreboard.line(line)?.read())
    }

    fn lines(&self, block: u32) -> Range<usize> {
        let first = usize::try_from(block).unwrap_or(usize::MAX).saturating_mul(self.threads);
        first..first.saturating_add(self.threads)
    }
}

fn number_of(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn blocks(count: usize, threads: usize) -> Blocks {
        let (scoreboard, _descriptor) = Scoreboard::create(count * threads).unwrap();
        Blocks::new(count, threads, Rc::new(scoreboard))
    }

    fn worker(pid: i32, block: u32) -> Worker {
        Worker {
            pid: Pid::from_raw(pid).unwrap(),
            generation: 1,
            block,
            started: Instant::now(),
            expires: None,
            limit_reached: None,
            idle_before: Duration::ZERO,
        }
    }

    #[test]
    fn blocks_are_given_once_and_come_back_with_the_end_of_their_template() {
        let mut blocks = blocks(4, 1);
        let taken = [1, 1, 2, 2].map(|generation| blocks.take(generation).unwrap());
        assert_eq!((taken, blocks.take(3)), ([0, 1, 2, 3], None));
        assert_eq!(blocks.free_generation(1), [0, 1]);
        assert_eq!((blocks.take(3), blocks.take(3), blocks.take(3)), (Some(0), Some(1), None));
        blocks.free(3);
        assert_eq!(blocks.take(3), Some(3));
    }

    #[test]
    fn blocks_are_added_up_to_the_room_of_the_scoreboard() {
        let (scoreboard, _descriptor) = Scoreboard::create_with_room(2, 8).unwrap();
        let mut blocks = Blocks::new(1, 2, Rc::new(scoreboard));
        assert_eq!((blocks.take(1), blocks.take(1)), (Some(0), None));
        blocks.grow(3);
        blocks.grow(2);
        assert_eq!(blocks.scoreboard.lines(), 6);
        assert_eq!((blocks.take(1), blocks.take(1), blocks.take(1)), (Some(1), Some(2), None));
    }

    #[test]
    fn a_worker_is_idle_when_all_its_threads_are() {
        let mut blocks = blocks(2, 2);
        let worker = worker(100, blocks.take(1).unwrap());
        let line = |number| blocks.scoreboard.line(number).unwrap();
        assert!(!blocks.has_begun(&worker) && blocks.idle_for(&worker).is_none());
        (0..2).for_each(|number| line(number).claim(100, 0));
        assert!(blocks.has_begun(&worker) && blocks.idle_for(&worker).is_some());
        line(1).begin("request");
        assert!(blocks.is_busy(worker.block) && blocks.idle_for(&worker).is_none());
        assert_eq!(blocks.requests_of(worker.pid), ["request"]);
        line(1).mark_missing();
        assert!(blocks.idle_for(&worker).is_some(), "there is no such thread");
        assert_eq!(blocks.may_accept(worker.pid, worker.block), Some(true), "a thread is idle");
        line(0).begin("request");
        assert_eq!(blocks.may_accept(worker.pid, worker.block), Some(false));
        line(0).end();
        [0, 1].iter().for_each(|&number| line(number).leave());
        assert!(blocks.idle_for(&worker).is_none());
        assert_eq!(blocks.may_accept(worker.pid, worker.block), Some(false));
        assert_eq!(blocks.may_accept(Pid::from_raw(101).unwrap(), worker.block), None);
    }

    #[test]
    fn the_idle_time_of_a_predecessor_counts_until_the_first_request() {
        let mut blocks = blocks(1, 1);
        let mut worker = worker(200, blocks.take(1).unwrap());
        worker.idle_before = Duration::from_secs(100);
        let line = blocks.scoreboard.line(0).unwrap();
        line.claim(200, 0);
        assert!(blocks.idle_for(&worker).unwrap() >= Duration::from_secs(100));
        line.begin("request");
        line.end();
        assert!(blocks.idle_for(&worker).unwrap() < Duration::from_secs(100));
        assert!(blocks.has_served(worker.pid) && blocks.counts().served == 1);
    }
}
