//! Many requests: what a worker holds does not grow.

use super::{
    ECHO,
    process::{Setup, count, resident},
    wire::{Ask, Wire},
};

#[test]
fn after_50_000_requests_a_worker_holds_what_it_held_after_5_000() {
    let pool = Setup::new(ECHO).start();
    let mut wires: Vec<Wire> = (0..10).map(|_| pool.connect()).collect();
    let asks = [
        Ask::get("/get").keep(),
        Ask::post("/post", vec![b'x'; 3000]).keep(),
        Ask::get("/bad").keep().param("CONTENT_LENGTH", "x"),
    ];
    let worker = wires[0].ask(&asks[0]).pid();
    let mut before = None;
    for round in 0..5000_u32 {
        if round == 500 {
            before = Some((resident(worker), count(worker, "fd")));
        }
        // A web server does not wait for one connection before it uses the next.
        let asked = |number: usize| &asks[if round % 50 == 0 { 2 } else { number % 2 }];
        for (number, wire) in wires.iter().enumerate() {
            wire.send(&asked(number).bytes());
        }
        for (number, wire) in wires.iter_mut().enumerate() {
            let status = wire.answer().head().status;
            assert_eq!(status, if round % 50 == 0 { 400 } else { 200 }, "request {number} of round {round}");
        }
        if round % 100 == 0 {
            let last = (round / 100 % 10) as usize;
            wires[last] = pool.connect();
        }
    }
    let (memory, descriptors) = before.unwrap();
    let (memory_now, descriptors_now) = (resident(worker), count(worker, "fd"));
    assert!(memory_now.abs_diff(memory) <= 2048, "{memory} KiB, then {memory_now} KiB");
    assert!(descriptors_now <= descriptors, "{descriptors} descriptors, then {descriptors_now}");
    assert_eq!(pool.workers(1), [worker]);
    pool.stop();
}
