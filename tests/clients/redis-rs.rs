// Names of any bytes there and back, codes of errors, a map, nil, a pick that waits. See test_clients.py.
use redis::{AsyncConnectionConfig, RedisResult, Value, aio::MultiplexedConnection, cmd};
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> RedisResult<()> {
    let client = redis::Client::open("redis://127.0.0.1:6379/?protocol=resp3")?;
    let mut c: MultiplexedConnection = client.get_multiplexed_async_connection().await?;
    cmd("DEL")
        .arg(&["odd", "busy", "text"])
        .exec_async(&mut c)
        .await?;
    let mut add = cmd("LB.ADD");
    add.arg("odd")
        .arg("two words")
        .arg(1)
        .arg(b"\0\xff\r\n")
        .arg(1)
        .arg("\"\\")
        .arg(1);
    add.exec_async(&mut c).await?;
    let names: Vec<Vec<u8>> = cmd("LB.PICK")
        .arg(&["odd", "COUNT", "3"])
        .query_async(&mut c)
        .await?;
    for name in names {
        cmd("LB.WEIGHT")
            .arg("odd")
            .arg(name)
            .arg(7)
            .exec_async(&mut c)
            .await?;
    }

    cmd("SET").arg(&["text", "x"]).exec_async(&mut c).await?;
    for command in ["LB.WEIGHT odd x 1", "LB.PICK text", "LB.PICK odd COUNT 0"] {
        let words: Vec<&str> = command.split(' ').collect();
        if let Err(error) = cmd(words[0]).arg(&words[1..]).exec_async(&mut c).await {
            println!("{}", error.code().unwrap_or("no reply"));
        }
    }
    let stats: Value = cmd("LB.STATS").arg("odd").query_async(&mut c).await?;
    println!(
        "{}",
        if matches!(stats, Value::Map(_)) {
            "map"
        } else {
            "list"
        }
    );
    for words in [["LB.PICK", "none"].as_slice(), &["LB.STATS", "odd", "x"]] {
        let nothing: Value = cmd(words[0]).arg(&words[1..]).query_async(&mut c).await?;
        println!("{}", if nothing == Value::Nil { "nil" } else { "?" });
    }

    // Waiting: a connection of its own, whose time for a reply is longer than BLOCK; 0.5 s without that.
    // On the shared one LB.DONE would stand behind the pick that waits for it.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let mut waiting = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    cmd("LB.ADD")
        .arg(&["busy", "one", "1"])
        .exec_async(&mut c)
        .await?;
    cmd("LB.LIMIT")
        .arg(&["busy", "MAX", "1"])
        .exec_async(&mut c)
        .await?;
    let (_, lease): (String, String) = cmd("LB.PICK")
        .arg(&["busy", "LEASE", "60000"])
        .query_async(&mut c)
        .await?;
    let mut done = cmd("LB.DONE");
    done.arg("busy").arg(lease);
    let mut wait = cmd("LB.PICK");
    wait.arg(&["busy", "LEASE", "60000", "BLOCK", "5000"]);
    let (picked, ended) = tokio::join!(
        wait.query_async::<(String, String)>(&mut waiting),
        done.exec_async(&mut c)
    );
    ended?;
    println!("{}", picked?.0);
    Ok(())
}
