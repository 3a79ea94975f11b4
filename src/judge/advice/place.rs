//! Whose settings the advice is about.

use serde::Serialize;

use crate::model::{Around, Place};

/// Whose network namespace was judged, where it is not plainly the machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Whose {
    /// `pod`, `container`, or `namespace`.
    pub of: &'static str,
    /// Whether it is the machine's all the same; `None` when unknown.
    pub is_machines: Option<bool>,
    /// What that means, in a sentence.
    pub meaning: String,
}

impl Whose {
    /// `None` where it is the machine's, and no container around.
    #[must_use]
    pub fn of(place: &Place) -> Option<Self> {
        let name = place
            .hostname
            .as_deref()
            .map_or_else(String::new, |name| format!(" ({name})"));
        let (of, what) = match place.around {
            Around::Pod => ("pod", format!("this pod{name}")),
            Around::Container => ("container", format!("this container{name}")),
            Around::Nothing if place.is_machines == Some(false) => {
                ("namespace", "this process, not the machine's".into())
            }
            Around::Nothing => return None,
        };
        let meaning = match (place.is_machines, of) {
            (Some(true), "pod") => format!(
                "judged is the network namespace of the node, which {what} shares (hostNetwork). Its \
                 settings are changed on the node: such a pod may set no net.* sysctl."
            ),
            (Some(true), _) => format!(
                "judged is the machine's own network namespace, which {what} shares. Its settings \
                 are changed on the machine."
            ),
            (_, "pod") => format!(
                "judged is the network namespace of {what}. Its range, reuse and ports are its own: \
                 what is set on the node does not reach it. It is set in the pod's spec: `twcheck advise \
                 --format kubernetes`."
            ),
            (_, "container") => format!(
                "judged is the network namespace of {what}. Its range, reuse and ports are its own: \
                 what is set on the host does not reach it. It is set where the container is made: \
                 `docker run --sysctl NAME=VALUE`, `podman run --sysctl NAME=VALUE`."
            ),
            _ => format!(
                "judged is the network namespace of {what}. Its range, reuse and ports are its own: \
                 what the machine's sysctl sets does not reach it; run sysctl inside it."
            ),
        };
        Some(Self {
            of,
            is_machines: place.is_machines,
            meaning,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_whose_settings_are_meant_and_what_reaches_them() {
        let said = |around, is_machines| {
            Whose::of(&Place {
                around,
                is_machines,
                hostname: Some("shop-7".into()),
            })
            .map(|whose| (whose.of, whose.meaning))
        };
        assert_eq!(said(Around::Nothing, Some(true)), None);
        assert_eq!(said(Around::Nothing, None), None);
        for (around, is_machines, of, words) in [
            (
                Around::Pod,
                Some(false),
                "pod",
                "of this pod (shop-7). Its range",
            ),
            (Around::Pod, None, "pod", "on the node does not reach it"),
            (Around::Pod, Some(true), "pod", "may set no net.* sysctl"),
            (
                Around::Container,
                Some(false),
                "container",
                "on the host does not reach it",
            ),
            (
                Around::Container,
                Some(true),
                "container",
                "are changed on the machine",
            ),
            (
                Around::Nothing,
                Some(false),
                "namespace",
                "sysctl sets does not reach it",
            ),
        ] {
            let (found, meaning) = said(around, is_machines).unwrap();
            assert_eq!(found, of);
            assert!(meaning.contains(words), "{meaning}");
        }
    }
}
