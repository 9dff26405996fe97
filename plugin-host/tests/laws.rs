//! The law checker on plugins that obey, and on plugins that do not.

use bytes::Bytes;
use merganser_plugin_host::laws::{Corpus, Law, Report, Verdict, check};
use merganser_plugin_host::{Host, Limits, PluginHash, TEMPLATE_CART, World, built_in};

use crate::built_ins::{HOST, plugin, sibling};
use crate::guests::{CONCATENATE_SIBLINGS, FIRST_STATE, lattice, resolver};

fn check_guest(wasm: &[u8], values: &[&'static str]) -> Report {
    let host = Host::new(Limits { fuel_base: 20_000_000, ..Limits::default() }).unwrap();
    let hash = host.load(wasm).unwrap().hash;
    let values = values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
    check(&host, &hash, &Corpus { values, ..Corpus::default() }, 7, 50)
}

fn refused(report: &Report, law: Law) -> &merganser_plugin_host::laws::Counterexample {
    match &report.finding(law).expect("it applies").verdict {
        Verdict::Refused(example) | Verdict::Warned(example) => example,
        other => panic!("{law:?}: {other:?}\n{report}"),
    }
}

#[test]
fn the_built_in_plugins_obey() {
    for built_in in built_in() {
        let cases = if built_in.name == "automerge" { 25 } else { 100 };
        let report = check(&HOST, &plugin(built_in.name), &Corpus::default(), 1, cases);
        assert!(!report.refused(), "{}\n{report}", built_in.name);
        for finding in &report.findings {
            let expected = match (built_in.name, finding.law) {
                // Its answer, written back, gets a stamp of its own: the head of its source says so.
                ("lww", Law::Settling) => matches!(finding.verdict, Verdict::Warned(_)),
                _ => finding.verdict == Verdict::Holds,
            };
            assert!(expected, "{}: {finding:?}\n{report}", built_in.name);
        }
    }
}

#[test]
fn the_template_obeys() {
    let hash = HOST.load(TEMPLATE_CART).unwrap().hash;
    let report = check(&HOST, &hash, &Corpus::default(), 1, 100);
    assert!(!report.refused() && report.warnings().next().is_none(), "{report}");
    HOST.unload(&hash);
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let corpus = Corpus::default();
    let mut reports = [1, 1, 2].map(|seed| check(&HOST, &plugin("or-set"), &corpus, seed, 20));
    for report in &mut reports {
        // The only thing in it that is not deterministic.
        report.most.micros = 0;
    }
    assert_eq!(reports[0], reports[1]);
    assert_ne!(reports[0].most.fuel, reports[2].most.fuel);
}

#[test]
fn concatenation_is_shown_not_to_settle_with_the_smallest_example() {
    let report = check_guest(&resolver(CONCATENATE_SIBLINGS), &["milk and tea", "eggs, a dozen", "bread"]);
    let example = refused(&report, Law::Settling);
    let bytes: usize = example.items.iter().filter_map(|item| item.content.as_ref()).map(Bytes::len).sum();
    assert!(example.items.len() <= 3 && bytes <= 3, "{report}");
    assert!(!report.refused(), "a resolver that does not settle is warned about\n{report}");
    assert!(report.to_string().contains("warn    L4"), "{report}");
}

#[test]
fn a_lattice_that_keeps_the_first_state_is_refused() {
    let report = check_guest(&lattice(FIRST_STATE), &["left hand", "right hand", "foot"]);
    assert_eq!(report.world, Some(World::Lattice));
    assert!(report.refused());
    let example = refused(&report, Law::Order);
    let states: Vec<_> = example.items.iter().map(|item| item.content.clone().unwrap()).collect();
    assert!(states.len() == 2 && states.iter().map(Bytes::len).sum::<usize>() <= 1, "{report}");
    assert!(matches!(report.finding(Law::Idempotent).unwrap().verdict, Verdict::Holds), "{report}");
    assert!(report.to_string().contains("BROKEN  L1  merge(a, b) = merge(b, a)"), "{report}");
}

#[test]
fn a_resolver_that_changes_a_lone_value_is_refused() {
    let report = check_guest(&resolver("(global.get $out)"), &["something"]);
    assert!(report.refused());
    assert_eq!(
        refused(&report, Law::Idempotent).items[0].content.as_ref().map(Bytes::len),
        Some(1),
        "{report}"
    );
}

#[test]
fn a_trap_on_one_value_is_found_and_shrunk_to_it() {
    // Traps where the first sibling begins with an x.
    let touchy = resolver(
        "(if (i32.eq (i32.load8_u (i32.load (i32.add (local.get $siblings) (i32.const 28)))) (i32.const 120))
           (then (unreachable)))
         (i64.store offset=4 (global.get $out) (i64.load offset=28 (local.get $siblings)))
         (global.get $out)",
    );
    let report = check_guest(&touchy, &["xylophone", "duck"]);
    let example = refused(&report, Law::Resources);
    assert!(report.refused() && example.left.contains("trap"), "{report}");
    assert_eq!(example.items.len(), 1, "{report}");
    assert_eq!(example.items[0].content.as_deref(), Some(&b"x"[..]), "{report}");
}

#[test]
fn recorded_conflicts_and_samples_are_tried_and_rejected_ones_named() {
    let corpus = Corpus {
        values: vec!["MPN2\0\0\0".into(), "not a counter".into()],
        operations: vec!["+1".into(), "no number".into()],
        ..Corpus::default()
    };
    let report = check(&HOST, &plugin("pn-counter"), &corpus, 3, 30);
    assert!(!report.refused(), "{report}");
    assert_eq!(report.rejected_samples.len(), 1);
    assert_eq!(report.rejected_samples[0].0, 1);

    let conflicts = vec![vec![sibling(1, 1, "a"), sibling(2, 2, "b")]];
    let report = check(&HOST, &plugin("lww"), &Corpus { conflicts, ..Corpus::default() }, 3, 0);
    assert_eq!(report.finding(Law::Deterministic).map(|finding| finding.cases), Some(1), "{report}");
}

#[test]
fn a_plugin_that_is_not_loaded_is_refused() {
    let report = check(&HOST, &PluginHash([9; 32]), &Corpus::default(), 1, 10);
    assert!(report.refused() && report.findings.is_empty());
}
