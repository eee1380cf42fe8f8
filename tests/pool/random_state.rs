//! Random numbers of workers that were forked from one process.

use std::{collections::HashSet, fs};

use crate::support::{fastcgi_client::FastcgiRequest, pool::PoolSetup, web_servers::eventually};

/// Draws from all generators. `numpy` is a stand-in of our own, which is no package of this
/// machine.
const DRAWS: &str = "
    import os, random, sys
    sys.path.insert(0, os.environ['MARK'])
    import numpy.random.mtrand
    random.seed(1)
    numpy.random.mtrand.seed(1)
    again = random.Random(1)
    os.register_at_fork(after_in_child=again.seed)
    same = random.Random(1)
    def application(environ, start_response):
        drawn = [random.random(), numpy.random.mtrand.state, again.random(), same.random()]
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [' '.join(map(str, drawn)).encode()]
    ";

/// Seeds as numpy's module does.
const NUMPY: &str = "
import os
state = 0
def seed(value=None):
    global state
    state = os.urandom(8).hex() if value is None else value
";

#[test]
fn functions_of_python_and_numpy_are_reseeded_in_each_worker_and_no_other_generator_is() {
    let setup = PoolSetup::new(DRAWS).args(&["--max-requests", "1"]);
    fs::create_dir_all(setup.path("numpy/random")).unwrap();
    fs::write(setup.path("numpy/__init__.py"), "").unwrap();
    fs::write(setup.path("numpy/random/__init__.py"), "").unwrap();
    fs::write(setup.path("numpy/random/mtrand.py"), NUMPY).unwrap();
    let pool = setup.start();
    let mut drawn: [HashSet<String>; 4] = Default::default();
    let mut workers = HashSet::new();
    eventually("four workers have answered", || {
        let response = pool.ask(&FastcgiRequest::get("/"));
        if workers.insert(response.pid()) {
            for (set, value) in drawn.iter_mut().zip(response.text().split(' ')) {
                set.insert(value.to_owned());
            }
        }
        workers.len() == 4
    });
    assert_eq!(drawn.map(|set| set.len()), [4, 4, 4, 1]);
    pool.stop();
}
