# One datanode: sealed chunks in /var/lib/frostbyte/data, and its own key beside them.
FROM frostbyte-base
ENTRYPOINT ["frostbyte", "datanode"]
CMD ["--data", "/var/lib/frostbyte/data", "--config", "/etc/frostbyte/config.json"]
