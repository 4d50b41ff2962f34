"""python -m al_args"""

from al_args import main

main()
