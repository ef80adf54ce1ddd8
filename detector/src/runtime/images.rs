//! What the containers of each image do after their start: see `detect/expected/image.rs`.

use super::id::Id;
use super::join::Key;
use crate::finding::{Image, Text, Typical};
use crate::recent::Recent;

/// How many containers of an image must have done something.
const LEAST: usize = 3;
/// How long after one of them has done it the next one must have started, in nanoseconds.
const APART: u64 = 10_000_000_000;
/// How many acts are remembered at most. At least the half of them that happened last always are.
const MOST: usize = 8192;

/// An act, with the image and the ordinary user whose runtime has told of it.
type Act = (Option<u32>, Text, u64);

/// The acts of containers of the same image.
#[derive(Debug)]
pub(super) struct Images(Recent<Act, Done>);

/// The containers that have done an act, which were started apart.
#[derive(Clone, Debug, Default)]
struct Done {
    by: Vec<Id>,
    /// When the last of them did it.
    last: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self(Recent::new(MOST))
    }
}

impl Images {
    /// Records what a container has done. Returns whether all of that is what containers of the image do.
    pub(super) fn expect(&mut self, container: &Key, image: &Image, typical: &Typical) -> bool {
        let Some(content) = content(image) else { return false };
        let is_of_image = |act: &&u64| self.note((container.user, content.clone(), **act), &container.id, typical);
        // Each act is recorded, also after one that is new.
        typical.acts.iter().filter(is_of_image).count() == typical.acts.len()
    }

    /// Records that a container has done something. Returns whether enough containers have.
    fn note(&mut self, act: Act, container: &Id, typical: &Typical) -> bool {
        let done = self.0.get(&act).cloned().unwrap_or_default();
        let is_apart = done.by.is_empty() || typical.started >= done.last.saturating_add(APART);
        if done.by.len() >= LEAST || done.by.contains(container) || !is_apart {
            return done.by.len() >= LEAST;
        }
        let by: Vec<_> = done.by.into_iter().chain([container.clone()]).collect();
        let is_enough = by.len() >= LEAST;
        self.0.insert(act, Done { by, last: typical.time });
        is_enough
    }
}

/// What stands for the content of an image: its digest, or else the id that its runtime gives it, if that is a digest.
fn content(image: &Image) -> Option<&Text> {
    let is_digest = |id: &&Text| Id::new(id.as_str().strip_prefix("sha256:").unwrap_or(id.as_str())).is_some();
    image.digest.as_ref().or(image.id.as_ref().filter(is_digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(nth: usize) -> Key {
        Key { id: Id::new(&format!("{nth:064x}")).expect("it is one"), user: None }
    }

    fn image(digest: &str) -> Image {
        Image { digest: Some(digest.as_bytes().into()), ..Image::default() }
    }

    /// What is done five seconds after a start.
    fn acts(numbers: &[u64], started: u64) -> Typical {
        let started = started * SECOND;
        Typical { acts: numbers.to_vec(), started, time: started + 5 * SECOND }
    }

    /// Whether each act is expected, of containers of an image that start at these times.
    fn expected(starts: &[u64]) -> Vec<bool> {
        let mut images = Images::default();
        let of = |(nth, started): (usize, &u64)| images.expect(&key(nth), &image("web"), &acts(&[7], *started));
        starts.iter().enumerate().map(of).collect()
    }

    #[test]
    fn three_containers_that_started_apart_do_the_same() {
        assert_eq!(expected(&[100, 200, 300, 400]), [false, false, true, true]);
        // They start after the one before has done it, and ten seconds later.
        assert_eq!(expected(&[100, 115, 130]), [false, false, true]);
        assert_eq!(expected(&[100, 115, 129]), [false, false, false]);
        assert_eq!(expected(&[100, 101, 102, 103, 104]), [false; 5]);
        // Some start together, and others apart.
        assert_eq!(expected(&[100, 101, 200, 201, 300]), [false, false, false, false, true]);
        // The answers about them come in another order.
        assert_eq!(expected(&[300, 200, 100]), [false; 3]);
    }

    #[test]
    fn what_is_done_everywhere_at_the_same_time_is_of_no_image() {
        let mut images = Images::default();
        for nth in 0..10 {
            let typical = Typical { acts: vec![7], started: nth as u64 * 50 * SECOND, time: 500 * SECOND };
            assert!(!images.expect(&key(nth), &image("web"), &typical), "{nth}");
        }
    }

    #[test]
    fn other_containers_and_acts_do_not_count() {
        let mut images = Images::default();
        // The same container is started again and again.
        for time in 1..10 {
            assert!(!images.expect(&key(0), &image("web"), &acts(&[7], time * 100)));
        }
        for nth in 1..10_u64 {
            let started = 1000 + nth * 100;
            let (this, digest) = (key(nth as usize), format!("{nth}"));
            assert!(!images.expect(&this, &image(&digest), &acts(&[7], started)), "other images");
            assert!(!images.expect(&this, &image("web"), &acts(&[100 + nth], started)), "other acts");
            assert!(!images.expect(&Key { user: Some(nth as u32), ..this }, &image("web"), &acts(&[7], started)));
        }
    }

    #[test]
    fn one_new_act_makes_a_finding_of_several_unexpected() {
        let mut images = Images::default();
        for nth in 0..3 {
            images.expect(&key(nth), &image("web"), &acts(&[1, 2], 100 * (nth as u64 + 1)));
        }
        for (nth, numbers, is_expected) in [(3, &[2, 1][..], true), (4, &[9, 1], false), (5, &[1, 2, 3], false)] {
            let typical = acts(numbers, 100 * (nth as u64 + 1));
            assert_eq!(images.expect(&key(nth), &image("web"), &typical), is_expected, "{numbers:?}");
        }
        // What is after the new act is recorded as well.
        for nth in 6..8 {
            images.expect(&key(nth), &image("web"), &acts(&[8, 3], 100 * (nth as u64 + 1)));
        }
        assert!(images.expect(&key(8), &image("web"), &acts(&[3], 900)));
    }

    #[test]
    fn an_image_is_known_by_a_digest() {
        let digest = "a".repeat(64);
        for (id, is_known) in [
            (Some(digest.clone()), true),
            (Some(format!("sha256:{digest}")), true),
            (Some("web:latest".to_owned()), false),
            (None, false),
        ] {
            let image = Image { id: id.as_ref().map(|id| id.as_bytes().into()), ..Image::default() };
            let mut images = Images::default();
            let of = |nth: usize| images.expect(&key(nth), &image, &acts(&[7], 100 * (nth as u64 + 1)));
            assert_eq!((0..3).map(of).last(), Some(is_known), "{id:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_acts_in_use_stay() {
        let mut images = Images::default();
        for nth in 0..3 {
            images.expect(&key(nth), &image("web"), &acts(&[7], 100 * (nth as u64 + 1)));
        }
        for other in 0..2 * MOST as u64 {
            images.expect(&key(9), &image("other"), &acts(&[other], 100));
            if other % 1000 == 0 {
                assert!(images.expect(&key(4), &image("web"), &acts(&[7], 100)), "{other}");
            }
        }
        assert!(images.0.get(&(None, b"other"[..].into(), 0)).is_none());
    }
}
