//! Whose a miss is of a viewer who goes where he is sent: told from what would have been better for
//! him, were all well and all there.

use std::cmp::Ordering;

use super::Seen;
use super::reason::Reason;
use crate::control::registry::Room;
use crate::message::decision::Cause;

/// Why `best` is the first of them.
pub(super) fn of(best: &Seen<'_>, seen: &[Seen<'_>], nobody_has_routes: bool) -> Cause {
    // Mostly nobody is in his way, and their order need not be known.
    let hindered = seen.iter().filter(|seen| is_hindered(seen));
    let better = hindered.filter(|one| order(one, best) == Ordering::Less);
    let Some(ideal) = better.min_by(|one, other| order(one, other)) else {
        return match best.route.is_none() && !nobody_has_routes {
            true => Cause::Route,
            false => Cause::Content,
        };
    };
    match ideal.out {
        Some(Reason::OtherPathways | Reason::NoAddress { .. }) => Cause::Route,
        None if ideal.absent && !is_tight(ideal) => Cause::Content,
        _ => Cause::Health,
    }
}

/// Whether it is behind where it could be, or out, for what may pass.
fn is_hindered(seen: &Seen<'_>) -> bool {
    match seen.out {
        // What it is not meant for is no hindrance.
        Some(Reason::OtherSites | Reason::NotForHim) => false,
        Some(_) => true,
        None => seen.absent || is_tight(seen),
    }
}

fn is_tight(seen: &Seen<'_>) -> bool {
    matches!(seen.member.room, Room::Tight { .. }) && !seen.stays
}

/// Which of two would be better, were all well and all there.
fn order(one: &Seen<'_>, other: &Seen<'_>) -> Ordering {
    one.order_by(other, |seen| (false, seen.score_at_ease))
}
