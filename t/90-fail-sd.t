#!/usr/bin/perl
# Guards: whichever call fails in sd, a submit or a look ends well or with a reason, what was acknowledged is there.
use strict;
use warnings;
use HyperTest;
use HyperSd;
use FailNth;
use Test::More;

my $page = fail_page('sd');
my $sd = sd_new();
with_pages($page, sub { $sd->start_sd });
my (%acknowledged, $next);

# A new record for a name of its own: 'ok' or why not. Without an answer it may be there or not.
sub submit {
	my $record = $next // $sd->record(name => 'op-' . ++$sd->{n});
	my $r = $sd->submit($record);
	$next = undef;
	return 'silent submit' if $r->{curl} == 28;
	return 'submit closed' if !+$r->{http};
	return $r->{error} ? "submit error $r->{error}{code}" : "submit http $r->{http}" if !$r->{result};
	$acknowledged{ $record->{hash} } = 1;
	return 'ok';
}

sub look {
	my $r = $sd->call('getRecords', { after => '' });
	return 'silent look' if $r->{curl} == 28;
	return ref $r->{result} eq 'ARRAY' ? 'ok' : $r->{error} ? "look error $r->{error}{code}" : 'look closed';
}

sub runs { return $sd->{daemon}->is_running }
my %common = (runs => \&runs, short => 8, program => 'sd');

# Signing asks sd for its tip: that shall not be the call that fails.
sub ready_to_submit { $next = $sd->record(name => 'op-' . ++$sd->{n}); return }
fail_walk($page, $_, %common, before => \&ready_to_submit, scenario => \&submit) for qw(mem fd send recv);
fail_walk($page, $_, %common, scenario => \&look) for qw(mem kernel);
# Its disk: a failed write refuses this submit; after a failed sync the store is poisoned, and sd ends, to verify all at its next start (faults.md).
my $ended = 0;
sub lives_again {
	return 1 if $sd->{daemon}->is_running;
	ok($sd->{daemon}->count_log(qr/ error .*(?:poison|store|disk|sync)/), 'it says why it ended') or diag($sd->{daemon}->log_tail);
	$ended++;
	with_pages($page, sub { $sd->start_sd });
	return 1;
}
# It may end right after its answer.
sub submit_to_disk { my $said = submit(); wait_until { !$sd->{daemon}->is_running } 0.3 if $said ne 'ok'; return $said }
fail_walk($page, 'disk', %common, runs => \&lives_again, before => \&ready_to_submit, scenario => \&submit_to_disk, short => 12);
note("it ended $ended times");
my %there = map { $_->{hash} => 1 } @{ $sd->records };
is_deeply([ grep { !$there{$_} } sort keys %acknowledged ], [], 'what was acknowledged is there');
hyper_done();
