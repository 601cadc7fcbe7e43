//! What the contract names and this version does not build is refused, never ignored.

use okta_worker::config;

use super::child::{command, ran};

#[test]
fn each_setting_that_is_not_supported_yet_is_refused_with_exit_code_2() {
    const GOOD: &str = r#"
[connections.x]
domain = "acme.okta.com"
api_token = { env = "TEST_OKTA_TOKEN" }
subtools = ["read"]
[callers.x]
connections = ["x"]
subtools = ["read"]
"#;
    for config::NotYet { path, example } in config::NOT_YET {
        let path = path.replace('*', "x");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), GOOD).unwrap();
        std::fs::write(dir.path().join("b.toml"), format!("{path} = {example}\n")).unwrap();
        let mut run = command();
        run.arg("run").arg("--config").arg(dir.path()).env("TEST_OKTA_TOKEN", "x");
        let (code, _, stderr) = ran(&mut run);
        assert_eq!(code, 2, "{path}: {stderr}");
        assert!(stderr.contains(&path) && stderr.contains("not supported yet"), "{path}: {stderr}");
    }
}
