//! The conditions of a request: `If-Match` and `If-None-Match`.

use std::error::Error;

use watchkeep::Store;

use crate::support_entries::Hub;

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const THEME: &str = "/v1/entry?group=config&key=theme";

fn refusal(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

#[test]
fn conditions_take_lists_weak_tags_and_any() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let conflict = refusal(412, "conflict");
    let put = |name: &str, tags: &str| hub.ask("PUT", THEME, &[(name, tags)], b"v");

    // Nothing is there.
    for tags in ["*", "\"elsewhere-1\"", ""] {
        assert_eq!(put("If-Match", tags).refusal(), conflict, "{tags}");
        assert_eq!(hub.ask("DELETE", THEME, &[("If-Match", tags)], b"").refusal(), conflict, "{tags}");
        assert_eq!(
            hub.ask("PATCH", &format!("{THEME}&ttl=1h"), &[("If-Match", tags)], b"").refusal(),
            conflict
        );
        assert_eq!(hub.ask("GET", THEME, &[("If-Match", tags)], b"").refusal(), conflict);
    }
    let first = put("If-None-Match", "*");
    assert_eq!(first.status, 204);
    assert_eq!(put("If-None-Match", "*").refusal(), conflict);

    // One tag, also a weak one, or one of many, or any.
    let mut tag = first.cursor().to_owned();
    for form in ["\"TAG\"", "W/\"TAG\"", "\"TAG-gzip\"", "\"other-3\", \"TAG\" ,\"b\"", "*"] {
        let answer = put("If-Match", &form.replace("TAG", &tag));
        assert_eq!(answer.status, 204, "{form}");
        assert_ne!(answer.cursor(), tag);
        assert_eq!(put("If-Match", &format!("\"{tag}\"")).refusal(), conflict, "{form}");
        answer.cursor().clone_into(&mut tag);
    }
    assert_eq!(hub.get(THEME).cursor(), tag);

    // Two headers are one list.
    let two = [("If-Match", "\"other-1\""), ("If-Match", &format!("\"{tag}\""))];
    assert_eq!(hub.ask("GET", THEME, &two, b"").status, 200);
    assert_eq!(hub.ask("DELETE", THEME, &two[..1], b"").refusal(), conflict);
    assert_eq!(hub.ask("DELETE", THEME, &two, b"").status, 204);

    for headers in [
        [("If-None-Match", "\"a-1\""), ("X", "y")],
        [("If-None-Match", "\"*\""), ("X", "y")],
        [("If-None-Match", "*"), ("If-Match", "*")],
    ] {
        assert_eq!(hub.ask("PUT", THEME, &headers, b"v").refusal(), refusal(400, "invalid_argument"));
    }
    Ok(())
}

#[test]
fn only_a_bare_star_is_any_and_a_comma_in_quotes_parts_nothing() -> Result {
    let store = Store::open_in_memory()?;
    let hub = Hub::over(&store);
    let at = hub.put(THEME, "dark").cursor().to_owned();
    let inside = [format!("\"zz,{at}\""), format!("\"zz,{at},\", W/\"{at}, b\""), format!("\"{at}")];
    for tags in
        ["\"*\"", "W/*", "W/\"*\"", "\"a\", \"*\""].into_iter().chain(inside.iter().map(String::as_str))
    {
        assert_eq!(hub.ask("GET", THEME, &[("If-None-Match", tags)], b"").status, 200, "{tags}");
        for (method, target) in
            [("PUT", THEME.to_owned()), ("DELETE", THEME.to_owned()), ("GET", THEME.to_owned())]
        {
            let answer = hub.ask(method, &target, &[("If-Match", tags)], b"");
            assert_eq!(answer.refusal(), refusal(412, "conflict"), "{method} {tags}");
        }
    }
    for tags in [format!("\"zz,\",\"{at}\""), format!(",, \"b\" ,W/\"{at}\","), "*".to_owned()] {
        assert_eq!(hub.ask("GET", THEME, &[("If-None-Match", &tags)], b"").status, 304, "{tags}");
        assert_eq!(hub.ask("GET", THEME, &[("If-Match", &tags)], b"").status, 200, "{tags}");
    }
    Ok(())
}
