//! Tests that run one after the other in one cluster, because it takes long to start.

use super::test::Test;

/// At least one.
pub struct Batch(pub Vec<Test>);

impl Batch {
    pub fn is_alone(&self) -> bool {
        self.0.iter().any(Test::is_alone)
    }
}

/// Every test in a cluster of its own.
pub fn single(tests: Vec<Test>) -> Vec<Batch> {
    tests.into_iter().map(|test| Batch(vec![test])).collect()
}

/// Tests that leave a cluster as they found it share one, in their order. Where `jobs` run at once,
/// so many clusters of a kind take turns.
pub fn gather(tests: Vec<Test>, jobs: usize) -> Vec<Batch> {
    // Those in a row share a kind of cluster.
    let mut kinds: Vec<Vec<Batch>> = Vec::new();
    for test in tests {
        let kind = kinds.iter_mut().find(|kind| kind[0].0[0].shares_cluster_with(&test));
        match kind {
            None => kinds.push(vec![Batch(vec![test])]),
            Some(kind) if kind.len() < jobs => kind.push(Batch(vec![test])),
            Some(kind) => {
                let shares = kind.iter().map(|batch| batch.0.len());
                let (next, _) =
                    shares.enumerate().min_by_key(|&(_, share)| share).unwrap_or_default();
                kind[next].0.push(test);
            }
        }
    }
    kinds.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::test;
    use super::*;

    #[test]
    fn equal_clusters_are_shared_and_scenarios_have_their_own() {
        let tests_of = |names: &[&str]| -> Vec<Test> {
            names.iter().map(|name| test::find(name).unwrap()).collect()
        };
        let names = |batches: Vec<Batch>| -> Vec<Vec<String>> {
            let names = |batch: Batch| batch.0.into_iter().map(|test| test.name).collect();
            batches.into_iter().map(names).collect()
        };
        let tests = tests_of(&[
            "connectivity",
            "topology-xnet",
            "tcp",
            "overlay-base",
            "pmtu",
            "sctp-large",
        ]);
        assert_eq!(
            names(gather(tests.clone(), 1)),
            [
                vec!["connectivity", "tcp"],
                vec!["topology-xnet"],
                vec!["overlay-base"],
                vec!["pmtu"],
                vec!["sctp-large"]
            ]
        );
        let of_a_kind = tests_of(&["connectivity", "tcp", "udp", "topology-xnet", "user"]);
        assert_eq!(
            names(gather(of_a_kind, 2)),
            [vec!["connectivity", "udp"], vec!["tcp", "user"], vec!["topology-xnet"]]
        );
        assert!(names(single(tests)).iter().all(|batch| batch.len() == 1));
    }
}
