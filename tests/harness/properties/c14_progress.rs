//! C14, progress: a healthy cluster answers, every request is answered once, nothing runs in circles.
//!
//! In: what nodes can reach, and outcomes of requests that were asked, once all were up and connected for a while; the
//! run's own counts. A bound is generous: it is for what never ends, not for what is slow.

use super::{Check, broken};
use merganser_core::request::Problem;

/// Events beyond which a run is taken to be running in circles.
const EVENTS_MAX: u64 = 400_000;
/// Events under way beyond which the nodes are taken to feed one another.
const QUEUE_MAX: usize = 20_000;
/// Virtual time beyond which clients are taken to be stuck.
const CLIENTS_US_MAX: u64 = 300_000_000;

/// While the run goes on.
pub fn on_step(events: u64, under_way: usize) -> Check {
    if events > EVENTS_MAX || under_way > QUEUE_MAX {
        return broken("C14", format!("the run goes in circles: {events} events, {under_way} under way"));
    }
    Ok(())
}

/// While clients are still asking.
pub fn on_clients(now_us: u64) -> Check {
    if now_us > CLIENTS_US_MAX { broken("C14", "clients are stuck".into()) } else { Ok(()) }
}

/// Every node runs and every link has been up for a while, and yet this one cannot reach that one, or does not serve.
pub fn on_unreached_in_health(node: &str, member: &str) -> Check {
    broken("C14", format!("nothing has failed for a while, and {node} cannot reach {member}"))
}

/// A client of a healthy cluster was told of a problem.
pub fn on_problem_in_health(op: usize, problem: &Problem, is_rotten: bool) -> Check {
    match problem {
        // Rot is found and repaired in its own time.
        Problem::Storage { .. } | Problem::Uncertain { .. } if is_rotten => Ok(()),
        Problem::NotEnoughReplicas { .. }
        | Problem::Uncertain { .. }
        | Problem::Overloaded { .. }
        | Problem::UnknownKeyspace { .. }
        | Problem::InvalidContext { .. }
        | Problem::ClockSkew { .. }
        | Problem::Storage { .. } => {
            broken("C14", format!("op {op} asked a healthy cluster and was told: {problem}"))
        }
        _ => Ok(()),
    }
}

/// A client of a healthy cluster got no answer.
pub fn on_silence_in_health(op: usize) -> Check {
    broken("C14", format!("op {op} asked a healthy cluster and heard nothing"))
}
