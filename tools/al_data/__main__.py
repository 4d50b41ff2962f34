"""python -m al_data"""

from al_data import main

main()
