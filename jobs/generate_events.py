"""Generate an event log with planted tastes, to try userrep on.

    spark-submit jobs/generate_events.py --out build/log --users 100000 --items 20000 --days 180

writes Parquet below --out: events (by ingest_date), items, users, onboarding, and truth (what was planted). The same
arguments give the same rows, however many tasks make them. With the default rate a user has about 0.6 events a day.
--regime plants another kind of log: users who repeat a few items, who explore, or who leave for good.
"""

import argparse

from userrep.config.values import read_day
from userrep.errors import UserrepError
from userrep.spark.session import get_session
from userrep.synthetic.generator import LogSpec, generate_log
from userrep.synthetic.spec import REGIMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder or URI to write below; what is there is overwritten")
    parser.add_argument("--users", type=int, default=LogSpec.num_users, help="number of users (%(default)s)")
    parser.add_argument("--items", type=int, default=LogSpec.num_items, help="number of items (%(default)s)")
    parser.add_argument("--days", type=int, default=LogSpec.num_days, help="length of the log in days (%(default)s)")
    parser.add_argument("--first-day", type=read_day, default=LogSpec.first_day, help="its first UTC day (%(default)s)")
    parser.add_argument("--seed", type=int, default=LogSpec.seed, help="another seed, another log (%(default)s)")
    parser.add_argument("--regime", choices=REGIMES, default="mixed", help="kind of log (%(default)s)")
    args = parser.parse_args()
    try:
        spec = LogSpec(args.users, args.items, args.first_day, args.days, seed=args.seed, **REGIMES[args.regime])
        generate_log(get_session(app_name="generate_events"), spec, args.out)
    except UserrepError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
