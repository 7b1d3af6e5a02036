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

/// Tests that leave a cluster as they found it share one, in their order.
pub fn gather(tests: Vec<Test>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for test in tests {
        match batches.iter_mut().find(|batch| batch.0[0].shares_cluster_with(&test)) {
            Some(batch) => batch.0.push(test),
            None => batches.push(Batch(vec![test])),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::super::test;
    use super::*;

    #[test]
    fn equal_clusters_are_shared_and_scenarios_have_their_own() {
        let names = ["connectivity", "topology-xnet", "tcp", "overlay-base", "pmtu", "sctp-large"];
        let tests: Vec<Test> = names.iter().map(|name| test::find(name).unwrap()).collect();
        let names = |batches: Vec<Batch>| -> Vec<Vec<String>> {
            let names = |batch: Batch| batch.0.into_iter().map(|test| test.name).collect();
            batches.into_iter().map(names).collect()
        };
        assert_eq!(
            names(gather(tests.clone())),
            [
                vec!["connectivity", "tcp"],
                vec!["topology-xnet"],
                vec!["overlay-base"],
                vec!["pmtu"],
                vec!["sctp-large"]
            ]
        );
        assert!(names(single(tests)).iter().all(|batch| batch.len() == 1));
    }
}
