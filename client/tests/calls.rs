//! Calls of the client, one behaviour each.

use crate::fake::{Answer, Node, nodes, topology};
use bytes::Bytes;
use merganser_client::{
    Client, Context, Error, State, Write,
    proto::{self as v1, pipeline_request::Request as Asked, problem::Detail},
};
use parking_lot::Mutex;
use std::sync::Arc;
use tonic::Code;

async fn client(nodes: &[Node]) -> Client {
    Client::connect(nodes.iter().map(|node| node.address.clone())).await.unwrap()
}

async fn pipelined(nodes: &[Node]) -> Client {
    let addresses = nodes.iter().map(|node| node.address.clone());
    Client::builder().pipelined(true).connect(addresses).await.unwrap()
}

fn uncertain() -> Answer {
    let dot = Some(v1::Dot { actor: 5, counter: 77 });
    Answer::Problem(Code::DeadlineExceeded, Detail::Uncertain(v1::Uncertain { dot, acks: None }))
}

fn few() -> Answer {
    let detail = v1::NotEnoughReplicas { needed: 2, reachable: 1 };
    Answer::Problem(Code::Unavailable, Detail::NotEnoughReplicas(detail))
}

/// The request ids of all puts that a node saw.
fn ids(node: &Node) -> Vec<Bytes> {
    let id = |asked: &Asked| match asked {
        Asked::Put(put) => Some(put.request_id.clone()),
        _ => None,
    };
    node.seen().iter().filter_map(id).collect()
}

#[tokio::test]
async fn a_request_goes_straight_to_the_primary_of_its_key() {
    let nodes = nodes(["a", "b", "c"]).await;
    let client = client(&nodes[..1]).await;
    let carts = client.keyspace("carts");
    for key in 0..30 {
        carts.get(format!("key-{key}")).await.unwrap();
    }
    let mut total = 0;
    for node in &nodes {
        for asked in node.seen() {
            let Asked::Get(get) = asked else { panic!("only gets were asked") };
            let topology = client.topology();
            assert_eq!(topology.primaries("carts", &get.key)[0].name, node.name);
            total += 1;
        }
        assert!(!node.seen().is_empty(), "thirty keys meet every node");
    }
    assert_eq!(total, 30, "one hop each");
}

#[tokio::test]
async fn a_write_is_retried_with_the_same_request_id_on_whatever_node() {
    let nodes = nodes(["a", "b"]).await;
    for node in &nodes {
        node.will([Answer::Plain(Code::Unavailable), uncertain(), few()]);
    }
    let written = client(&nodes).await.keyspace("carts").put_blind("k", "v").await.unwrap();
    assert_eq!(written.siblings, 1);
    let ids: Vec<Bytes> = nodes.iter().flat_map(ids).collect();
    assert!(ids.len() >= 4, "{}", ids.len());
    assert_eq!(ids[0].len(), 16);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn every_attempt_of_a_write_says_until_when_it_counts_by_the_time_of_its_node() {
    let nodes = nodes(["a", "b"]).await;
    for node in &nodes {
        node.boots();
        node.will([few()]);
    }
    for client in [client(&nodes).await, pipelined(&nodes).await] {
        let carts = client.keyspace("carts");
        carts.put_blind("k", "v").await.unwrap();
        carts.delete_blind("k").await.unwrap();
        carts.apply("k", "+1").await.unwrap();
        let blind = |key: &'static str| Write::PutBlind { key: key.into(), value: "v".into() };
        for written in carts.batch_write([blind("k"), blind("l")]).await {
            written.unwrap();
        }
    }
    let mut writes = 0;
    for node in &nodes {
        assert!((1..=2).contains(&node.told()), "each client asks a node once, if it writes to it");
        for asked in node.seen() {
            let (until, timeout_ms) = match asked {
                Asked::Put(put) => (put.until, put.timeout_ms),
                Asked::Delete(delete) => (delete.until, delete.timeout_ms),
                Asked::Apply(apply) => (apply.until, apply.timeout_ms),
                _ => panic!("only writes were asked"),
            };
            let until = until.expect("a write says until when");
            assert_eq!(until.session, node.now().session);
            // The node's time stands still; the client takes it to go on.
            let beyond_ms = until.running_ms.abs_diff(timeout_ms.into());
            assert!(beyond_ms < 2_000, "an attempt counts for as long as it may take: {beyond_ms}");
            writes += 1;
        }
    }
    assert!(writes >= 10, "{writes}");
}

#[tokio::test]
async fn a_node_that_was_started_again_is_asked_for_its_time_anew() {
    let [node] = nodes(["a"]).await;
    let carts = client(std::slice::from_ref(&node)).await.keyspace("carts");
    carts.put_blind("k", "v").await.unwrap();
    node.boots();
    let written = carts.put_blind("k", "w").await.unwrap();
    assert_eq!((written.attempts, node.told(), node.seen().len()), (Some(1), 2, 2));
}

#[tokio::test]
async fn two_writes_have_two_request_ids() {
    let [node] = nodes(["a"]).await;
    let carts = client(std::slice::from_ref(&node)).await.keyspace("carts");
    carts.put_blind("k", "v").await.unwrap();
    carts.put_blind("k", "v").await.unwrap();
    assert_ne!(ids(&node)[0], ids(&node)[1]);
}

#[tokio::test]
async fn a_primary_that_refuses_connections_is_passed_over() {
    let [live, told] = nodes(["live", "told"]).await;
    // The topology names a node where nobody listens.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    live.tells(topology([("dead", nowhere), ("live", live.address.clone())].into_iter()));
    let client = client(std::slice::from_ref(&live)).await;
    let carts = client.keyspace("carts");
    for key in 0..10 {
        carts.put_blind(format!("key-{key}"), "v").await.unwrap();
    }
    assert_eq!(ids(&live).len(), 10);
    assert!(told.seen().is_empty(), "a node that is in no topology is not asked");
}

#[tokio::test]
async fn what_another_attempt_cannot_cure_is_told_at_once_with_its_facts() {
    let [node] = nodes(["a"]).await;
    let limit =
        v1::SiblingLimit { siblings: 64, limit: 64, context: "all of them".into(), ..Default::default() };
    node.will([Answer::Problem(Code::ResourceExhausted, Detail::SiblingLimit(limit))]);
    let carts = client(std::slice::from_ref(&node)).await.keyspace("carts");
    match carts.put_blind("k", "v").await {
        Err(Error::SiblingLimit { siblings: 64, limit: 64, context, .. }) => {
            assert_eq!(context.as_bytes(), b"all of them");
            carts.put("k", "settled", &context).await.unwrap();
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(node.seen().len(), 2);
}

#[tokio::test]
async fn a_write_that_may_have_happened_stays_uncertain_and_can_be_retried_as_itself() {
    let [node] = nodes(["a"]).await;
    node.will([uncertain(), Answer::Plain(Code::FailedPrecondition)]);
    let carts = client(std::slice::from_ref(&node)).await.keyspace("carts");
    let Err(Error::Uncertain(facts)) = carts.put_blind("k", "v").await else { panic!("it is uncertain") };
    assert_eq!(facts.dot.unwrap().counter, 77);
    facts.retry().await.unwrap();
    let ids = ids(&node);
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test]
async fn a_reply_too_large_for_a_message_comes_as_a_stream() {
    let [node] = nodes(["a"]).await;
    let detail = v1::TooLarge { what: "reply".into(), size_bytes: 70 << 20, limit_bytes: 4 << 20 };
    for client in [client(std::slice::from_ref(&node)).await, pipelined(std::slice::from_ref(&node)).await] {
        node.will([Answer::Problem(Code::ResourceExhausted, Detail::TooLarge(detail.clone()))]);
        let entry = client.keyspace("carts").get("k").await.unwrap();
        let values: Vec<_> = entry.siblings().iter().map(|sibling| sibling.value().unwrap()).collect();
        assert_eq!(values, ["hello", "world"]);
        assert_eq!(entry.context().as_bytes(), b"streamed");
        assert_eq!(entry.value().unwrap_err().code(), "unresolved");
    }
}

#[tokio::test]
async fn an_entry_carries_its_context_from_read_to_write_to_write() {
    let [node] = nodes(["a"]).await;
    let mut entry = client(std::slice::from_ref(&node)).await.keyspace("carts").get("k").await.unwrap();
    assert_eq!(entry.value().unwrap().unwrap(), "found");
    entry.put("one").await.unwrap();
    assert_eq!(entry.value().unwrap().unwrap(), "one");
    entry.put("two").await.unwrap();
    entry.delete().await.unwrap();
    assert_eq!((entry.state(), entry.value().unwrap()), (State::Deleted, None));
    let contexts: Vec<Bytes> = node
        .seen()
        .into_iter()
        .filter_map(|asked| match asked {
            Asked::Put(put) => Some(put.context),
            Asked::Delete(delete) => Some(delete.context),
            _ => None,
        })
        .collect();
    assert_eq!(contexts, ["a-1", "a-2", "a-3"]);
    assert_eq!(*entry.context(), Context::from_bytes("a-4"));
}

#[tokio::test]
async fn an_entry_retries_its_uncertain_write_and_takes_over_its_context() {
    let [node] = nodes(["a"]).await;
    let mut entry = client(std::slice::from_ref(&node)).await.keyspace("carts").get("k").await.unwrap();
    assert!(entry.retry().await.is_none());
    node.will([uncertain(), Answer::Plain(Code::FailedPrecondition)]);
    assert_eq!(entry.put("one").await.unwrap_err().code(), "uncertain");
    assert_eq!(entry.context().as_bytes(), b"a-1", "nothing is known of the write yet");
    entry.retry().await.unwrap().unwrap();
    assert_eq!(entry.value().unwrap().unwrap(), "one");
    assert_eq!(entry.context().as_bytes(), b"a-4");
    assert!(entry.retry().await.is_none());
}

#[tokio::test]
async fn pipelined_replies_find_their_requests_in_any_order() {
    let [node] = nodes(["a"]).await;
    let carts = pipelined(std::slice::from_ref(&node)).await.keyspace("carts");
    let (get, put, query) = tokio::join!(carts.get("k"), carts.put_blind("k", "v"), carts.query("k", "path"));
    assert_eq!(get.unwrap().value().unwrap().unwrap(), "found");
    assert_eq!(put.unwrap().siblings, 1);
    assert_eq!(query.unwrap().result, "42");
}

#[tokio::test]
async fn a_pipeline_that_breaks_is_opened_again_and_the_write_keeps_its_id() {
    let [node] = nodes(["a"]).await;
    let carts = pipelined(std::slice::from_ref(&node)).await.keyspace("carts");
    node.will([Answer::Break]);
    carts.put_blind("k", "v").await.unwrap();
    let ids = ids(&node);
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_batch_answers_each_item_in_order_and_retries_only_what_may_be_cured() {
    let nodes = nodes(["a", "b"]).await;
    let carts = client(&nodes).await.keyspace("carts");
    let write = |key: &str| Write::PutBlind { key: key.to_owned().into(), value: "v".into() };
    let too_long = "x".repeat(257);
    for node in &nodes {
        node.will([few()]);
    }
    let keys: Vec<String> = (0..20).map(|key| format!("key-{key}")).collect();
    let writes = keys.iter().map(|key| write(key)).chain([write(&too_long), write("")]);
    let outcomes = carts.batch_write(writes).await;
    assert_eq!(outcomes.len(), 22);
    assert!(outcomes[..20].iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(outcomes[20].as_ref().unwrap_err().code(), "too_large");
    assert_eq!(outcomes[21].as_ref().unwrap_err().code(), "invalid_argument");
    let mut ids: Vec<Bytes> = nodes.iter().flat_map(ids).collect();
    assert_eq!(ids.len(), 22, "one item of each node was asked twice");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "with the same id");

    let gets = carts.batch_get(&keys).await;
    let found = gets.iter().map(|get| get.as_ref().unwrap().key().to_vec());
    assert_eq!(found.collect::<Vec<_>>(), keys.iter().map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>());
}

#[tokio::test]
async fn too_large_and_too_long_are_refused_before_anything_is_sent() {
    let [node] = nodes(["a"]).await;
    let carts = client(std::slice::from_ref(&node)).await.keyspace("carts");
    assert_eq!(carts.put_blind("k", vec![0; (1 << 20) + 1]).await.unwrap_err().code(), "too_large");
    assert_eq!(carts.put_blind("", "v").await.unwrap_err().code(), "invalid_argument");
    assert_eq!(carts.get("x".repeat(257)).await.unwrap_err().code(), "too_large");
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn a_module_is_uploaded_whole_and_tells_how_far_it_is() {
    let [node] = nodes(["a"]).await;
    let admin = client(std::slice::from_ref(&node)).await.admin();
    let module: Vec<u8> = (0..600_000u32).map(|i| i as u8).collect();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let reply = admin
        .upload_plugin("mine", module.clone(), move |progress| telling.lock().push(progress.sent_bytes))
        .await
        .unwrap();
    assert_eq!(reply.ready, ["a"]);
    assert_eq!(*told.lock(), [262_144, 524_288, 600_000]);
    let mut bytes = Vec::new();
    let mut header = None;
    for part in node.uploaded() {
        match part.part.unwrap() {
            v1::upload_request::Part::Header(told) => header = Some((told.name, told.size_bytes)),
            v1::upload_request::Part::Chunk(chunk) => bytes.extend_from_slice(&chunk),
        }
    }
    assert_eq!(header, Some(("mine".into(), 600_000)));
    assert_eq!(bytes, module);
    assert_eq!(admin.plugin("x").await.unwrap_err().code(), "not_found");
    assert_eq!(admin.remove_plugin("x").await.unwrap_err().code(), "refused");
    assert_eq!(admin.status_of(&node.address).await.unwrap().node, "a");
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_that_says_so() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let client = Client::builder().attempts_max(2).connect([nowhere.clone()]).await;
    let error = client.unwrap_err();
    assert_eq!(error.code(), "unavailable");
    assert!(error.what().contains(&nowhere), "{error}");
}

#[tokio::test]
async fn futures_of_the_client_may_move_between_threads() {
    fn moves<T: Send>(value: T) -> T {
        value
    }
    let [node] = nodes(["a"]).await;
    let client = client(std::slice::from_ref(&node)).await;
    let carts = client.keyspace("carts");
    moves(carts.get("k")).await.unwrap();
    moves(carts.batch_get(["k"])).await.remove(0).unwrap();
    moves(carts.batch_write([])).await;
    moves(client.admin().plugins()).await.unwrap();
}
