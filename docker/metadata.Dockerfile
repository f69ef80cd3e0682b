# The one owner of the records.
FROM frostbyte-base
ENTRYPOINT ["frostbyte", "metadata"]
CMD ["--data", "/var/lib/frostbyte/metadata", "--socket", "/var/lib/frostbyte/run/metadata.sock"]
