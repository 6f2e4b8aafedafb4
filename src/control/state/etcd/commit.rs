//! Changes on etcd: transactions that compare the revision of each key with the one it was read at.
//!
//! A transaction whose answer was lost is sent again: what it writes down of itself, under a name
//! that nothing else has, tells whether it was made before. What is too much for one goes in
//! several, those that put before those that delete: who is interrupted asks for the rest again.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
};
use tokio::time::timeout;

use super::identity;
use super::mirror::{LIVE, STATE};
use super::values::{Pointer, Value, parts, unique};
use super::{AuditRecord, By, Change, Expect, Shared, StateError};
use crate::control::state::json;
use crate::limits::{
    AUDIT_RECORDS_MAX, ETCD_ANSWER_BYTES_MAX, ETCD_TXN_BYTES_MAX, ETCD_TXN_OPS_MAX,
};

/// One transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    expects: Vec<(String, Expect)>,
    puts: Vec<(String, Vec<u8>)>,
    deletes: Vec<String>,
    /// Parts that have to be there still: who was away for long may find them swept.
    parts: Vec<String>,
    /// What it is known by, and what that says.
    mark: Option<(String, Vec<u8>)>,
}

/// Whether the change was made; what is there then is seen, or will be soon.
pub(super) async fn make(shared: &Shared, mut change: Change) -> Result<bool, StateError> {
    for (_, value) in &mut change.puts {
        if let Some(pointer) = Pointer::to(value) {
            put_parts(shared, &pointer, value).await?;
            *value = pointer.to_bytes();
        }
    }
    for step in steps(change, &unique()) {
        if !made(shared, &step).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn put_parts(shared: &Shared, pointer: &Pointer, value: &[u8]) -> Result<(), StateError> {
    for (key, part) in pointer.keys().zip(parts(value)) {
        let key = shared.key(&key);
        let put = |mut client: etcd_client::Client| {
            let (key, part) = (key.clone(), part.to_vec());
            async move { client.put(key, part, None).await }
        };
        shared.client.call(put).await?;
    }
    Ok(())
}

/// A change in as few transactions as etcd takes.
fn steps(change: Change, unique: &str) -> Vec<Step> {
    let Change { expects, puts, deletes, audit } = change;
    let mut expected: HashMap<String, Expect> = expects.into_iter().collect();
    let mut steps = vec![Step::default()];
    let (mut count, mut bytes) = (0, 0);
    let ops = puts.into_iter().map(|(key, value)| (key, Some(value)));
    for (key, value) in ops.chain(deletes.into_iter().map(|key| (key, None))) {
        let length = key.len() + value.as_ref().map_or(0, Vec::len);
        let part = value.as_deref().and_then(first_part);
        let compared = 1 + usize::from(part.is_some());
        if count + compared > ETCD_TXN_OPS_MAX || count > 0 && bytes + length > ETCD_TXN_BYTES_MAX {
            steps.push(Step::default());
            (count, bytes) = (0, 0);
        }
        (count, bytes) = (count + compared, bytes + length);
        let step = steps.last_mut().expect("there is one from the start");
        step.expects.extend(expected.remove_entry(&key));
        step.parts.extend(part);
        match value {
            Some(value) => step.puts.push((key, value)),
            None => step.deletes.push(key),
        }
    }
    // What is expected of keys that stay as they are; there is little of it.
    steps[0].expects.extend(expected);
    if let Some(record) = audit {
        let key = format!("{}{:012}-{unique}", audit_of(record.of), record.at);
        if let [first, _, ..] = &mut steps[..] {
            // Who is interrupted has changed something too.
            let begun = AuditRecord { what: format!("begun: {}", record.what), ..record.clone() };
            first.mark = Some((format!("{key}-begun"), json(&begun)));
        }
        let last = steps.last_mut().expect("there is one from the start");
        last.mark = Some((key, json(&record)));
    }
    steps
}

/// The key of the first of its parts, if a value has any; they are swept together.
fn first_part(value: &[u8]) -> Option<String> {
    match Value::parse(value)? {
        Value::Parted(pointer) => pointer.keys().next(),
        Value::Here(_) => None,
    }
}

/// Whether a transaction was made, by this question or by one before whose answer was lost.
async fn made(shared: &Shared, step: &Step) -> Result<bool, StateError> {
    let txn = |mut client: etcd_client::Client| {
        let txn = txn_of(shared, step);
        async move { client.txn(txn).await }
    };
    let answer = shared.client.call(txn).await?;
    let is_made_before = answer.op_responses().iter().any(|found| match found {
        TxnOpResponse::Get(found) => !found.kvs().is_empty(),
        _ => false,
    });
    let is_made = answer.succeeded() || is_made_before;
    // Who comes back reads what he wrote, and who was second what the first has written.
    let revision = answer.header().map_or(0, |header| header.revision());
    let within = if is_made { SEEN_WITHIN } else { OTHERS_SEEN_WITHIN };
    let mut seen = shared.seen.subscribe();
    let _ = timeout(within, seen.wait_for(|seen| *seen >= revision)).await;
    Ok(is_made)
}

fn txn_of(shared: &Shared, step: &Step) -> Txn {
    let compare = |(key, expect): &(String, Expect)| match expect {
        Expect::Nothing => Compare::create_revision(path(shared, key), CompareOp::Equal, 0),
        Expect::Version(version) => {
            Compare::mod_revision(path(shared, key), CompareOp::Equal, *version as i64)
        }
    };
    let parts = step.parts.iter();
    let parts = parts.map(|part| Compare::create_revision(shared.key(part), CompareOp::Greater, 0));
    // An etcd that was begun anew may not be known as such yet.
    let is_there = Compare::create_revision(identity::key(shared), CompareOp::Greater, 0);
    let mut compares: Vec<Compare> = step.expects.iter().map(compare).chain(parts).collect();
    compares.push(is_there);
    let deletes = step.deletes.iter().map(|key| TxnOp::delete(path(shared, key), None));
    let puts = step.puts.iter();
    let puts = puts.map(|(key, value)| TxnOp::put(path(shared, key), value.clone(), None));
    let mut ops: Vec<TxnOp> = deletes.chain(puts).collect();
    let mut otherwise = Vec::new();
    if let Some((key, value)) = &step.mark {
        let key = shared.key(key);
        compares.push(Compare::create_revision(key.clone(), CompareOp::Equal, 0));
        otherwise.push(TxnOp::get(key.clone(), None));
        ops.push(TxnOp::put(key, value.clone(), None));
    }
    Txn::new().when(compares).and_then(ops).or_else(otherwise)
}

/// Keys are those of the state, but for the one that says who leads.
fn path(shared: &Shared, key: &str) -> String {
    match key.starts_with(LIVE) {
        true => shared.key(key),
        false => shared.key(&format!("{STATE}{key}")),
    }
}

/// The latest changes of these, the newest first.
pub(super) async fn audit(
    shared: &Shared,
    of: &[By],
    count_max: usize,
) -> Result<Vec<AuditRecord>, StateError> {
    let mut latest = Vec::new();
    for by in of {
        let key = shared.key(audit_of(*by));
        let get = |client: etcd_client::Client| {
            let options = GetOptions::new().with_prefix();
            let options = options.with_sort(SortTarget::Create, SortOrder::Descend);
            let options = options.with_limit(count_max.min(AUDIT_RECORDS_MAX) as i64);
            let (key, kv) = (key.clone(), client.kv_client());
            let mut kv = kv.max_decoding_message_size(ETCD_ANSWER_BYTES_MAX);
            async move { kv.get(key, Some(options)).await }
        };
        let found = shared.client.call(get).await?;
        let records = found.kvs().iter();
        latest.extend(records.filter_map(|kv| {
            let record: AuditRecord = serde_json::from_slice(kv.value()).ok()?;
            Some((kv.create_revision(), record))
        }));
    }
    latest.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    latest.truncate(count_max);
    Ok(latest.into_iter().map(|(_, record)| record).collect())
}

/// How keys of what was changed begin; a moment follows. Those of boxes stand apart: they have no
/// room of operators'.
pub(super) fn audit_of(of: By) -> &'static str {
    match of {
        By::Operator => "audit/",
        By::Box => "audit-of-boxes/",
    }
}

const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// It may be of keys that are not watched.
const OTHERS_SEEN_WITHIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::super::tests::alone;
    use super::*;

    fn change(puts: usize, bytes: usize, deletes: usize) -> Change {
        let puts = (0..puts).map(|n| (format!("p{n:04}"), vec![7; bytes])).collect::<Vec<_>>();
        let deletes = (0..deletes).map(|n| format!("d{n:04}")).collect::<Vec<_>>();
        let keys = puts.iter().map(|(key, _)| key).chain(&deletes);
        let expects = keys.map(|key| (key.clone(), Expect::Version(1))).collect();
        let (of, what) = (By::Operator, "b".to_owned());
        let audit = AuditRecord { at: 7, by: "a".into(), of, from: None, what };
        Change { expects, puts, deletes, audit: Some(audit) }
    }

    #[test]
    fn a_change_of_any_size_goes_in_transactions_that_etcd_takes() {
        for (puts, bytes, deletes, count) in
            [(1, 10, 1, 1), (50, 10, 50, 1), (60, 10, 60, 2), (0, 0, 1_000, 10), (90, 16_000, 5, 2)]
        {
            let steps = steps(change(puts, bytes, deletes), "u");
            assert_eq!(steps.len(), count, "{puts} {bytes} {deletes}");
            for step in &steps {
                let of = |key: &String| step.puts.iter().any(|(put, _)| put == key);
                let of = |key: &String| of(key) || step.deletes.contains(key);
                assert!(step.expects.iter().all(|(key, _)| of(key)));
                assert_eq!(step.expects.len(), step.puts.len() + step.deletes.len());
                let sent: usize = step.puts.iter().map(|(_, value)| value.len()).sum();
                assert!(step.expects.len() <= ETCD_TXN_OPS_MAX && sent <= ETCD_TXN_BYTES_MAX);
            }
            // Also who is interrupted has it written down.
            let marks = steps.iter().filter(|step| step.mark.is_some()).count();
            assert!(steps[0].mark.is_some() && steps[count - 1].mark.is_some());
            assert_eq!(marks, count.min(2));
        }
    }

    #[test]
    fn a_value_is_put_only_where_its_parts_are_there_still() {
        let pointer = Pointer::to(&vec![7; 1 << 20]).unwrap();
        let mut change = change(60, 10, 0);
        change.puts.iter_mut().for_each(|(_, value)| *value = pointer.to_bytes());
        let steps = steps(change, "u");
        let first = pointer.keys().next().unwrap();
        assert_eq!(steps.len(), 2);
        for step in &steps {
            assert!(step.expects.len() + step.parts.len() <= ETCD_TXN_OPS_MAX);
            assert_eq!(step.parts, vec![first.clone(); step.puts.len()]);
        }
        let txn = format!("{:?}", txn_of(&alone(), &steps[0]));
        let key = format!("{:?}", format!("/tidegate/{first}").into_bytes());
        assert!(txn.contains(&key), "{txn}");
        // Nor into an etcd that has lost the fleet.
        let key = format!("{:?}", identity::key(&alone()).into_bytes());
        assert!(txn.contains(&key), "{txn}");
    }

    #[test]
    fn what_is_expected_of_other_keys_is_expected_first() {
        let mut change = change(200, 10, 0);
        change.expects.push(("live/leader".to_owned(), Expect::Version(9)));
        let steps = steps(change, "u");
        let has = |step: &Step| step.expects.iter().any(|(key, _)| key == "live/leader");
        assert!(has(&steps[0]) && !has(&steps[1]));
    }
}
