"""Generate an event log with planted tastes, to try out userrep.

    spark-submit jobs/generate_events.py --out build/log --users 100000 --items 20000 --days 180

Writes Parquet below --out: events (partitioned by ingest_date), items, users, onboarding, and truth (what was
planted). The same arguments give the same rows, independent of the number of tasks. At the default rate a user has
about 0.6 events per day. --regime plants other behavior: users who repeat a few items, explore, or leave for good.
"""

import argparse

from userrep.config.values import read_day
from userrep.errors import UserrepError
from userrep.spark.session import get_session
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.synthetic.log_spec import REGIMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="output folder or URI; existing data is overwritten")
    parser.add_argument("--users", type=int, default=LogSpec.num_users, help="number of users (%(default)s)")
    parser.add_argument("--items", type=int, default=LogSpec.num_items, help="number of items (%(default)s)")
    parser.add_argument("--days", type=int, default=LogSpec.num_days, help="length of the log in days (%(default)s)")
    parser.add_argument("--first-day", type=read_day, default=LogSpec.first_day, help="first UTC day (%(default)s)")
    parser.add_argument("--seed", type=int, default=LogSpec.seed, help="random seed (%(default)s)")
    parser.add_argument("--regime", choices=REGIMES, default="mixed", help="behavior of the users (%(default)s)")
    args = parser.parse_args()
    try:
        spec = LogSpec(args.users, args.items, args.first_day, args.days, seed=args.seed, **REGIMES[args.regime])
        generate_log(get_session(app_name="generate_events"), spec, args.out)
    except UserrepError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
